"""One fresh process: from the import of a runtime to the first result. run.py starts it.

usage:  python cold.py RUNTIME FILES.json BATCH SEQUENCE BF16      prints JSON
"""
import json
import sys
import time

import runtimes

runtime, (batch, sequence) = runtimes.BY_NAME[sys.argv[1]], map(int, sys.argv[3:])
files = json.loads(sys.argv[2])
start = time.perf_counter()
session = runtime(files, batch, sequence, threads=1)
session.run()
first = session.outputs()
end = time.perf_counter()
with open('/proc/self/status') as status:
    # Not getrusage: its figure counts the parent's memory before the exec too.
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith('VmHWM'))
print(json.dumps({'seconds': end - start, 'peak': peak, 'libraries': runtimes.libraries(runtime.package)}))
