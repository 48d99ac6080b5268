/* Runs compiled kernels. Standard input: cases; standard output: per case the error flag and every buffer afterwards.
 * A buffer ends where an inaccessible page begins and has a canary before it, so an access outside of it is seen. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef void (*kernel_fn)(const uint64_t *args, uint64_t task, uint32_t worker);
extern const kernel_fn kernels[];

#define CANARY 64

static void die(const char *what)
{
    fprintf(stderr, "driver: %s\n", what);
    exit(2);
}

static uint64_t word(void)
{
    uint64_t w;
    if (fread(&w, sizeof w, 1, stdin) != 1)
        die("short input");
    return w;
}

int main(void)
{
    uint64_t cases = word();
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (uint64_t c = 0; c < cases; c++) {
        uint64_t tasks = word(), params = word();
        uint64_t args[33], sizes[33];
        void *maps[33];
        size_t lengths[33];
        int32_t flag = 0;
        if (params > 32)
            die("too many parameters");
        args[0] = (uint64_t)(uintptr_t)&flag;
        for (uint64_t p = 1; p <= params; p++) {
            int is_buffer = word() != 0;
            uint64_t w = word();
            maps[p] = NULL;
            args[p] = w;
            if (!is_buffer)
                continue;
            size_t data = (CANARY + w + page - 1) / page * page;
            lengths[p] = data + page;
            sizes[p] = w;
            unsigned char *m = mmap(NULL, lengths[p], PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (m == MAP_FAILED || mprotect(m + data, page, PROT_NONE) != 0)
                die("no memory");
            unsigned char *start = m + data - w;
            memset(start - CANARY, 0xa5, CANARY);
            if (w != 0 && fread(start, w, 1, stdin) != 1)
                die("short input");
            maps[p] = m;
            args[p] = (uint64_t)(uintptr_t)start;
        }
        for (uint64_t t = 0; t < tasks; t++)
            kernels[c](args, t, 0);
        fwrite(&flag, sizeof flag, 1, stdout);
        for (uint64_t p = 1; p <= params; p++) {
            if (maps[p] == NULL)
                continue;
            const unsigned char *start = (const unsigned char *)(uintptr_t)args[p];
            for (int i = 1; i <= CANARY; i++)
                if (start[-i] != 0xa5)
                    die("a write before a buffer");
            fwrite(start, 1, sizes[p], stdout);
            munmap(maps[p], lengths[p]);
        }
    }
    return 0;
}
