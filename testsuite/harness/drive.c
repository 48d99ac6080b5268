/* Drives any compiled model through its descriptor.
 *
 * usage: drive CASE OUT THREADS
 * CASE: binary file: i64 dims (one per symbol), then each input's elements, all in native order.
 * OUT:  receives the outputs' elements, one after the other, each preceded by its rank and shape (i64).
 * Prints the model's error and exits with its code if it reports one. THREADS 0: without a pool.
 */
#include "bertc_rt.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <malloc.h>
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define MODEL_DESCRIPTOR JOIN(MODEL, _model)
extern const bertc_model MODEL_DESCRIPTOR;

static const size_t size_of[] = {4, 2, 2, 8, 1, 1, 2, 2, 4, 4, 8, 8, 1};

static void die(const char *what) {
    fprintf(stderr, "drive: %s\n", what);
    exit(100);
}

static void *block(size_t bytes) {
    void *p = NULL;
#ifdef _WIN32
    p = _aligned_malloc(bytes ? bytes : 64, 64);
#else
    if (posix_memalign(&p, 64, bytes ? bytes : 64)) p = NULL;
#endif
    if (!p) die("out of memory");
    return p;
}

static size_t bytes_of(const bertc_tensor *t, const int64_t *shape) {
    size_t n = size_of[t->dtype];
    for (int32_t i = 0; i < t->rank; i++) n *= (size_t)shape[i];
    return n;
}

int main(int argc, char **argv) {
    const bertc_model *m = &MODEL_DESCRIPTOR;
    if (argc != 4) die("usage: drive CASE OUT THREADS");
    if (m->abi_version != 1 || m->struct_size != sizeof *m) die("unexpected ABI version");
    FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
    if (!in || !out) die("cannot open a file");
    int64_t dims[64];
    if (fread(dims, 8, m->n_symbols, in) != m->n_symbols) die("short case file");
    const void *inputs[64];
    void *outputs[64];
    size_t out_bytes[64];
    int64_t shapes[64][16];
    for (uint32_t i = 0; i < m->n_inputs; i++) {
        const bertc_tensor *t = &m->inputs[i];
        int64_t shape[16];
        for (int32_t d = 0; d < t->rank; d++)
            shape[d] = t->dims[d].symbol >= 0 ? dims[t->dims[d].symbol] : t->dims[d].value;
        size_t n = bytes_of(t, shape);
        void *p = block(n);
        if (fread(p, 1, n, in) != n) die("short case file");
        inputs[i] = p;
    }
    for (uint32_t i = 0; i < m->n_outputs; i++) {
        if (m->output_shape(dims, i, shapes[i])) die("output_shape failed");
        out_bytes[i] = bytes_of(&m->outputs[i], shapes[i]);
        outputs[i] = block(out_bytes[i]);
    }
    uint32_t threads = (uint32_t)atoi(argv[3]);
    bertc_pool *pool = threads ? bertc_pool_create(threads) : NULL;
    if (threads && !pool) die("cannot create the pool");
    size_t bytes = m->workspace_size(dims, threads ? threads : 1);
    if (!bytes) die("dims out of range");
    int32_t code = m->run(inputs, dims, outputs, block(bytes), bytes, pool ? bertc_pool_parallel(pool) : NULL, NULL);
    if (pool) bertc_pool_destroy(pool);
    if (code) {
        fprintf(stderr, "drive: %s\n", m->strerror(code));
        return code;
    }
    for (uint32_t i = 0; i < m->n_outputs; i++) {
        int64_t rank = m->outputs[i].rank;
        fwrite(&rank, 8, 1, out);
        fwrite(shapes[i], 8, (size_t)rank, out);
        fwrite(outputs[i], 1, out_bytes[i], out);
    }
    return fclose(out) ? 100 : 0;
}
