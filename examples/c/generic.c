/* Runs any compiled model, knowing nothing about it but its prefix: everything else is in its descriptor.
 *
 *   bertc model.onnx -o bert.o
 *   cc -std=c99 -O2 -I../../runtime-stub/include -DMODEL=bert generic.c bert.o libbertc_rt.a -pthread -o generic
 *   ./generic [THREADS [RUNS]]
 *
 * The inputs are made up: small token ids, full masks, one segment.
 */
#define _POSIX_C_SOURCE 200112L

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bertc.h"
#include "bertc_rt.h"

#ifndef MODEL
#define MODEL bert
#endif
#define PASTE(a, b) a##b
#define DESCRIPTOR(prefix) PASTE(prefix, _model)

extern const bertc_model DESCRIPTOR(MODEL);

static const struct {
  const char *name;
  size_t size;
} TYPES[] = {
    {"f32", 4}, {"f16", 2}, {"bf16", 2}, {"f64", 8}, {"i8", 1},  {"u8", 1},   {"i16", 2},
    {"u16", 2}, {"i32", 4}, {"u32", 4},  {"i64", 8}, {"u64", 8}, {"bool", 1},
};
#define N_TYPES (int32_t)(sizeof TYPES / sizeof TYPES[0])

static void die(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void *allocate(size_t align, size_t bytes) {
  void *p = NULL;
  if (posix_memalign(&p, align, bytes ? bytes : 1) != 0) die("no memory", "posix_memalign failed");
  return p;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static uint32_t random_number(void) {
  static uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return state >> 8;
}

static int64_t clip(int64_t v, const bertc_symbol *s) { return v < s->min ? s->min : v > s->max ? s->max : v; }

/* The first dim of a matrix is a batch, the others are lengths. */
static int64_t pick_dim(const bertc_model *m, uint32_t symbol) {
  for (uint32_t i = 0; i < m->n_inputs; i++) {
    const bertc_tensor *t = &m->inputs[i];
    if (t->rank > 1 && t->dims[0].symbol == (int32_t)symbol) return clip(1, &m->symbols[symbol]);
  }
  return clip(128, &m->symbols[symbol]);
}

static void print_tensor(const bertc_model *m, const char *kind, const bertc_tensor *t) {
  printf("  %-6s %-24s %-5s [", kind, t->name, TYPES[t->dtype].name);
  for (int32_t d = 0; d < t->rank; d++) {
    if (d) printf(", ");
    if (t->dims[d].symbol >= 0)
      printf("%s", m->symbols[t->dims[d].symbol].name);
    else if (t->dims[d].symbol == -1)
      printf("%" PRId64, t->dims[d].value);
    else
      printf("?");
  }
  printf("]\n");
}

static void store(unsigned char *at, int32_t dtype, int64_t v) {
  switch (dtype) {
    case BERTC_I64: case BERTC_U64: memcpy(at, &v, 8); break;
    case BERTC_I32: case BERTC_U32: { int32_t x = (int32_t)v; memcpy(at, &x, 4); break; }
    case BERTC_I16: case BERTC_U16: { int16_t x = (int16_t)v; memcpy(at, &x, 2); break; }
    case BERTC_I8: case BERTC_U8: case BERTC_BOOL: *at = (unsigned char)v; break;
    case BERTC_F32: { float x = (float)v; memcpy(at, &x, 4); break; }
    case BERTC_F64: { double x = (double)v; memcpy(at, &x, 8); break; }
    default: memset(at, 0, 2); break; /* half-width floats: zero */
  }
}

static void *make_input(const bertc_tensor *t, const int64_t *dims, int64_t ids) {
  size_t n = 1, size = TYPES[t->dtype].size, row = 1;
  for (int32_t d = 0; d < t->rank; d++) {
    row = (size_t)(t->dims[d].symbol >= 0 ? dims[t->dims[d].symbol] : t->dims[d].value);
    n *= row;
  }
  unsigned char *data = allocate(size, n * size < sizeof(void *) ? sizeof(void *) : n * size);
  for (size_t i = 0; i < n; i++) {
    int64_t v = (int64_t)random_number() % ids;
    if (strstr(t->name, "mask") || t->dtype == BERTC_BOOL) v = 1;
    else if (strstr(t->name, "type") || strstr(t->name, "segment")) v = 0;
    else if (strstr(t->name, "position")) v = (int64_t)(i % row);
    store(data + i * size, t->dtype, v);
  }
  return data;
}

int main(int argc, char **argv) {
  const bertc_model *m = &DESCRIPTOR(MODEL);
  if (m->abi_version != BERTC_ABI_VERSION) die(m->name, "was compiled for another ABI version");
  long threads = argc > 1 ? strtol(argv[1], NULL, 10) : 1;
  long runs = argc > 2 ? strtol(argv[2], NULL, 10) : 5;
  if (threads < 0 || threads > BERTC_POOL_MAX_THREADS || runs < 1) die("usage", "generic [THREADS [RUNS]]");

  printf("model %s, hash %.16s\n", m->name, m->hash);
  for (uint32_t i = 0; i < m->n_symbols; i++)
    printf("  dim    %-24s %" PRId64 "..=%" PRId64 "\n", m->symbols[i].name, m->symbols[i].min, m->symbols[i].max);
  for (uint32_t i = 0; i < m->n_inputs; i++) {
    if (m->inputs[i].dtype < 0 || m->inputs[i].dtype >= N_TYPES) die(m->inputs[i].name, "has an unknown type");
    print_tensor(m, "input", &m->inputs[i]);
  }
  for (uint32_t i = 0; i < m->n_outputs; i++) {
    if (m->outputs[i].dtype < 0 || m->outputs[i].dtype >= N_TYPES) die(m->outputs[i].name, "has an unknown type");
    print_tensor(m, "output", &m->outputs[i]);
  }

  int64_t *dims = allocate(sizeof(void *), sizeof *dims * (m->n_symbols + 1));
  for (uint32_t i = 0; i < m->n_symbols; i++) dims[i] = pick_dim(m, i);

  const void **inputs = allocate(sizeof(void *), sizeof *inputs * (m->n_inputs + 1));
  for (uint32_t i = 0; i < m->n_inputs; i++) inputs[i] = make_input(&m->inputs[i], dims, 100);

  void **outputs = allocate(sizeof(void *), sizeof *outputs * (m->n_outputs + 1));
  size_t *lengths = allocate(sizeof(void *), sizeof *lengths * (m->n_outputs + 1));
  for (uint32_t i = 0; i < m->n_outputs; i++) {
    int64_t shape[64];
    if (m->outputs[i].rank > 64) die(m->outputs[i].name, "has more than 64 dims");
    int32_t code = m->output_shape(dims, i, shape);
    if (code != BERTC_OK) die("output_shape", m->strerror(code));
    lengths[i] = 1;
    for (int32_t d = 0; d < m->outputs[i].rank; d++) lengths[i] *= (size_t)shape[d];
    size_t bytes = lengths[i] * TYPES[m->outputs[i].dtype].size;
    outputs[i] = allocate(sizeof(void *), bytes);
    memset(outputs[i], 0, bytes);
  }

  /* No pool means no parallel_for: the model then runs on this thread. */
  bertc_pool *pool = threads == 1 ? NULL : bertc_pool_create((uint32_t)threads);
  if (threads != 1 && pool == NULL) die("bertc_pool_create", "no memory or no threads");
  const bertc_parallel *parallel = bertc_pool_parallel(pool);
  bertc_options options;
  bertc_default_options(&options);
  size_t bytes = m->workspace_size(dims, parallel ? parallel->max_workers : 1);
  if (bytes == 0) die("workspace_size", "a dim is out of range");
  void *workspace = allocate(BERTC_WORKSPACE_ALIGN, bytes);

  /* Once to warm up; a vocabulary of fewer than 100 tokens makes the ids wrong, then try the smallest. */
  int32_t code = m->run(inputs, dims, outputs, workspace, bytes, parallel, &options);
  if (code == BERTC_INDEX_OUT_OF_RANGE) {
    for (uint32_t i = 0; i < m->n_inputs; i++) {
      free((void *)inputs[i]);
      inputs[i] = make_input(&m->inputs[i], dims, 1);
    }
    code = m->run(inputs, dims, outputs, workspace, bytes, parallel, &options);
  }
  if (code != BERTC_OK) die("run", m->strerror(code));

  double *times = allocate(sizeof(void *), sizeof *times * (size_t)runs);
  for (long i = 0; i < runs; i++) {
    double start = now();
    code = m->run(inputs, dims, outputs, workspace, bytes, parallel, &options);
    times[i] = now() - start;
    if (code != BERTC_OK) die("run", m->strerror(code));
  }
  qsort(times, (size_t)runs, sizeof *times, by_value);

  printf("run with");
  for (uint32_t i = 0; i < m->n_symbols; i++) printf(" %s = %" PRId64, m->symbols[i].name, dims[i]);
  printf(" on %" PRIu32 " thread(s): median %.3f ms, min %.3f ms, workspace %zu bytes\n",
         parallel ? parallel->max_workers : 1, 1e3 * times[runs / 2], 1e3 * times[0], bytes);
  for (uint32_t i = 0; i < m->n_outputs; i++) {
    printf("  %s:", m->outputs[i].name);
    if (m->outputs[i].dtype == BERTC_F32) {
      for (size_t k = 0; k < lengths[i] && k < 6; k++) printf(" %.5f", (double)((float *)outputs[i])[k]);
      printf(lengths[i] > 6 ? " ...\n" : "\n");
    } else {
      printf(" %zu elements of %s\n", lengths[i], TYPES[m->outputs[i].dtype].name);
    }
  }

  bertc_pool_destroy(pool);
  for (uint32_t i = 0; i < m->n_inputs; i++) free((void *)inputs[i]);
  for (uint32_t i = 0; i < m->n_outputs; i++) free(outputs[i]);
  free(inputs);
  free(outputs);
  free(lengths);
  free(dims);
  free(times);
  free(workspace);
  return 0;
}
