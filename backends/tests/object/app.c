/* Runs two models in one program, and every error code that can be provoked. */
#include "first.h"
#include "second.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 10, K = 8, N = 20, MAX = 4 * 16 };

static int64_t ids[MAX];
static float bias[N], y[MAX * N], want[MAX * N];

#define CHECK(cond)                                        \
  do {                                                     \
    if (!(cond)) {                                         \
      printf("line %d: %s\n", __LINE__, #cond);            \
      exit(1);                                             \
    }                                                      \
  } while (0)

static void reference(int rows) {
  for (int i = 0; i < rows; i++)
    for (int n = 0; n < N; n++) {
      float sum = bias[n];
      for (int k = 0; k < K; k++) {
        sum += (float)(ids[i] * K + k) * 0.25f * ((float)((k * N + n) % 7) - 3.0f);
      }
      want[i * N + n] = sum;
    }
}

/* A parallel_for that runs the tasks in reverse and changes the worker. */
static uint64_t tasks_seen;
static void reversed(void *ctx, uint64_t n, void (*fn)(void *, uint64_t, uint32_t), void *arg) {
  CHECK(ctx == &tasks_seen);
  for (uint64_t t = n; t-- > 0; tasks_seen++) fn(arg, t, (uint32_t)(t % 3));
}

static void poison(void) { memset(y, 0x5a, sizeof y); }

static int poisoned(void) {
  const unsigned char *b = (const unsigned char *)y;
  for (size_t i = 0; i < sizeof y; i++)
    if (b[i] != 0x5a) return 0;
  return 1;
}

static void errors(unsigned char *ws, size_t bytes) {
  first_inputs in = {ids, bias};
  first_outputs out = {y};
  first_dims dims = {2, 5};
  bertc_parallel par = {&tasks_seen, 3, 0, reversed};
  bertc_options opt = {sizeof(bertc_options), 0, 0};
  poison();
  CHECK(first_run(NULL, &dims, &out, ws, bytes, NULL, NULL) == BERTC_NULL_POINTER);
  CHECK(first_run(&in, NULL, &out, ws, bytes, NULL, NULL) == BERTC_NULL_POINTER);
  CHECK(first_run(&in, &dims, NULL, ws, bytes, NULL, NULL) == BERTC_NULL_POINTER);
  CHECK(first_run(&in, &dims, &out, NULL, bytes, NULL, NULL) == BERTC_NULL_POINTER);
  in.bias = NULL;
  CHECK(first_run(&in, &dims, &out, ws, bytes, NULL, NULL) == BERTC_NULL_POINTER);
  in.bias = bias;
  out.y = NULL;
  CHECK(first_run(&in, &dims, &out, ws, bytes, NULL, NULL) == BERTC_NULL_POINTER);
  out.y = y;
  const first_dims bad[] = {{0, 5}, {5, 5}, {2, 0}, {2, 17}, {-1, 5}, {2, INT64_MAX}, {INT64_MIN, 5}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK(first_run(&in, &bad[i], &out, ws, bytes, NULL, NULL) == BERTC_DIM_OUT_OF_RANGE);
    CHECK(first_workspace_size(&bad[i], 1) == 0);
  }
  CHECK(first_workspace_size(&dims, 0) == 0);
  CHECK(first_workspace_size(NULL, 1) == 0);
  CHECK(first_run(&in, &dims, &out, ws, bytes - 1, NULL, NULL) == BERTC_WORKSPACE_TOO_SMALL);
  CHECK(first_run(&in, &dims, &out, ws, 0, NULL, NULL) == BERTC_WORKSPACE_TOO_SMALL);
  CHECK(first_run(&in, &dims, &out, ws + 32, bytes, NULL, NULL) == BERTC_WORKSPACE_MISALIGNED);
  par.max_workers = 0;
  CHECK(first_run(&in, &dims, &out, ws, bytes, &par, NULL) == BERTC_BAD_PARALLEL);
  par.max_workers = 3;
  par.reserved = 1;
  CHECK(first_run(&in, &dims, &out, ws, bytes, &par, NULL) == BERTC_BAD_PARALLEL);
  par.reserved = 0;
  par.parallel_for = NULL;
  CHECK(first_run(&in, &dims, &out, ws, bytes, &par, NULL) == BERTC_BAD_PARALLEL);
  opt.size = 8;
  CHECK(first_run(&in, &dims, &out, ws, bytes, NULL, &opt) == BERTC_BAD_OPTIONS);
  opt.size = sizeof opt;
  opt.flags = 4;
  CHECK(first_run(&in, &dims, &out, ws, bytes, NULL, &opt) == BERTC_BAD_OPTIONS);
  for (int i = 0; i < 10; i++) {
    int64_t old = ids[i];
    const int64_t wrong[] = {ROWS, -1, INT64_MAX, INT64_MIN};
    ids[i] = wrong[i % 4];
    CHECK(first_run(&in, &dims, &out, ws, bytes, NULL, NULL) == BERTC_INDEX_OUT_OF_RANGE);
    ids[i] = old;
  }
  CHECK(poisoned());
  opt.flags = 0;
  CHECK(first_run(&in, &dims, &out, ws, bytes, NULL, &opt) == BERTC_OK);
  CHECK(!poisoned());
}

static void descriptor(const bertc_model *m, const char *name) {
  CHECK(m->abi_version == BERTC_ABI_VERSION && m->struct_size == sizeof(bertc_model));
  CHECK(!strcmp(m->name, name) && !strcmp(m->hash, "abc123"));
  CHECK(m->n_symbols == 2 && m->n_inputs == 2 && m->n_outputs == 1 && m->reserved == 0);
  CHECK(!strcmp(m->symbols[0].name, "batch") && m->symbols[0].min == 1 && m->symbols[0].max == 4);
  CHECK(!strcmp(m->symbols[1].name, "seq") && m->symbols[1].min == 1 && m->symbols[1].max == 16);
  CHECK(!strcmp(m->inputs[0].name, "ids") && m->inputs[0].dtype == BERTC_I64 && m->inputs[0].rank == 2);
  CHECK(m->inputs[0].dims[0].symbol == 0 && m->inputs[0].dims[1].symbol == 1);
  CHECK(!strcmp(m->inputs[1].name, "bias") && m->inputs[1].dtype == BERTC_F32 && m->inputs[1].rank == 1);
  CHECK(m->inputs[1].dims[0].symbol == -1 && m->inputs[1].dims[0].value == N);
  CHECK(!strcmp(m->outputs[0].name, "y") && m->outputs[0].rank == 3 && m->outputs[0].dims[2].value == N);
  int64_t dims[2] = {3, 7}, shape[3] = {0};
  CHECK(m->output_shape(dims, 0, shape) == BERTC_OK && shape[0] == 3 && shape[1] == 7 && shape[2] == N);
  CHECK(m->output_shape(dims, 1, shape) == BERTC_INDEX_OUT_OF_RANGE);
  CHECK(m->output_shape(NULL, 0, shape) == BERTC_NULL_POINTER);
  CHECK(m->output_shape(dims, 0, NULL) == BERTC_NULL_POINTER);
  dims[0] = 99;
  CHECK(m->output_shape(dims, 0, shape) == BERTC_DIM_OUT_OF_RANGE);
  for (int32_t c = -2; c < 12; c++) {
    const char *text = m->strerror(c);
    CHECK(text && *text);
    CHECK(!strcmp(text, "unknown error code") == (c < 0 || c > 8));
  }
  CHECK(!strcmp(m->strerror(BERTC_BAD_OPTIONS), "the options struct is invalid"));
}

int main(void) {
  const bertc_model *models[] = {&first_model, &second_model};
  for (int i = 0; i < MAX; i++) ids[i] = (i * 7 + 3) % ROWS;
  for (int n = 0; n < N; n++) bias[n] = (float)n - 4.0f;
  descriptor(models[0], "first");
  descriptor(models[1], "second");
  for (int m = 0; m < 2; m++)
    for (int64_t b = 1; b <= 4; b++)
      for (int64_t s = 1; s <= 16; s++)
        for (uint32_t workers = 0; workers < 4; workers++) {
          const int64_t dims[] = {b, s};
          const void *in[] = {ids, bias};
          void *out[] = {y};
          bertc_parallel par = {&tasks_seen, workers, 0, reversed};
          size_t bytes = models[m]->workspace_size(dims, workers ? workers : 1);
          CHECK(bytes && bytes % BERTC_WORKSPACE_ALIGN == 0);
          /* The byte behind the workspace must stay. */
          unsigned char *ws = aligned_alloc(BERTC_WORKSPACE_ALIGN, bytes + 64);
          memset(ws, 0xa5, bytes + 64);
          poison();
          tasks_seen = 0;
          CHECK(models[m]->run(in, dims, out, ws, bytes, workers ? &par : NULL, NULL) == BERTC_OK);
          CHECK(ws[bytes] == 0xa5);
          uint64_t rows = (uint64_t)(b * s), tasks = 0;
          if (workers > 1) {
            const uint64_t chunks[] = {4, 3, 5};
            for (int i = 0; i < 3; i++) {
              uint64_t n = (rows + chunks[i] - 1) / chunks[i];
              tasks += n > 1 ? n : 0;
            }
          }
          CHECK(tasks_seen == tasks);
          reference((int)rows);
          CHECK(!memcmp(y, want, rows * N * sizeof(float)));
          free(ws);
        }
  first_dims dims = {2, 5};
  size_t bytes = first_workspace_size(&dims, 1);
  unsigned char *ws = aligned_alloc(BERTC_WORKSPACE_ALIGN, bytes + 64);
  errors(ws, bytes);
  free(ws);
  puts("all good");
  return 0;
}
