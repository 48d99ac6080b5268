/* bertc_rt.h: the optional runtime stub, libbertc_rt.a: a thread pool and CPU detection. docs/abi.md explains it.
 *
 * Include it after a MODEL.h, or with bertc.h on the include path. Link with -pthread on Linux.
 */
#ifndef BERTC_RT_H
#define BERTC_RT_H

#ifndef BERTC_ABI_H
#include "bertc.h"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The most threads that a pool can have. */
#define BERTC_POOL_MAX_THREADS 1024

typedef struct bertc_pool bertc_pool;

/* A pool of `threads` threads, the caller of parallel_for included: 1 starts no thread at all, 0 means one for
 * each CPU that this process may use. NULL: out of memory or threads, or threads > BERTC_POOL_MAX_THREADS.
 */
bertc_pool *bertc_pool_create(uint32_t threads);

/* Stops and joins the threads and frees the pool. Nothing may be running on it. NULL is fine. */
void bertc_pool_destroy(bertc_pool *pool);

/* What to hand to MODEL_run; valid until bertc_pool_destroy. NULL for a NULL pool, which means: run serially. */
const bertc_parallel *bertc_pool_parallel(bertc_pool *pool);

/* The BERTC_CPU_* bits of this machine; 0 on x86-64. */
uint64_t bertc_cpu_features(void);

/* Fills *options with the defaults for this machine. NULL is ignored. */
void bertc_default_options(bertc_options *options);

#ifdef __cplusplus
}
#endif
#endif /* BERTC_RT_H */
