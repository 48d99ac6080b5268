/* Links the stub as an app does: the ABI's layout, the pool from C, and the default options. */
#include "bertc_rt.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>

#define CHECK(x) \
  do { \
    if (!(x)) { \
      printf("line %d: %s\n", __LINE__, #x); \
      return 1; \
    } \
  } while (0)

/* The same numbers as in abi.rs. */
static_assert(sizeof(bertc_parallel) == 24 && offsetof(bertc_parallel, parallel_for) == 16, "bertc_parallel");
static_assert(sizeof(bertc_options) == 16 && offsetof(bertc_options, cpu_features) == 8, "bertc_options");
static_assert(sizeof(bertc_symbol) == 24 && sizeof(bertc_dim) == 16 && sizeof(bertc_tensor) == 24, "tensors");
static_assert(sizeof(bertc_model) == 96 && offsetof(bertc_model, symbols) == 40, "bertc_model");
static_assert(offsetof(bertc_model, workspace_size) == 64 && offsetof(bertc_model, output_shape) == 88, "bertc_model");

enum { TASKS = 37, STEPS = 3000 };
typedef struct { uint64_t from[TASKS], to[TASKS]; } step_data;

static void step(void *arg, uint64_t task, uint32_t worker) {
  step_data *d = (step_data *)arg;
  (void)worker;
  d->to[task] = d->from[task] * 31 + d->from[(task + 1) % TASKS] + task;
}

static uint64_t chain(const bertc_parallel *p) {
  step_data d = {{0}, {0}};
  uint64_t sum = 0;
  for (int i = 0; i < STEPS; i++) {
    p->parallel_for(p->ctx, TASKS, step, &d);
    for (int k = 0; k < TASKS; k++) d.from[k] = d.to[k];
  }
  for (int k = 0; k < TASKS; k++) sum = sum * 31 + d.to[k];
  return sum;
}

static void *caller(void *arg) {
  return (void *)(uintptr_t)chain((const bertc_parallel *)arg);
}

int main(void) {
  bertc_pool *serial = bertc_pool_create(1);
  CHECK(serial);
  uint64_t expected = chain(bertc_pool_parallel(serial));
  bertc_pool_destroy(serial);

  for (uint32_t threads = 2; threads <= 4; threads++) {
    bertc_pool *pool = bertc_pool_create(threads);
    CHECK(pool);
    const bertc_parallel *p = bertc_pool_parallel(pool);
    CHECK(p->max_workers == threads && p->reserved == 0);
    CHECK(chain(p) == expected);

    pthread_t other;
    void *sum;
    CHECK(pthread_create(&other, NULL, caller, (void *)p) == 0);
    CHECK(chain(p) == expected);
    CHECK(pthread_join(other, &sum) == 0);
    CHECK((uintptr_t)sum == (uintptr_t)expected);
    bertc_pool_destroy(pool);
  }

  bertc_options options;
  bertc_default_options(&options);
  CHECK(options.size == sizeof options && options.flags == 0);
  CHECK(options.cpu_features == bertc_cpu_features());
  CHECK(bertc_pool_create(BERTC_POOL_MAX_THREADS + 1) == NULL);
  CHECK(bertc_pool_parallel(NULL) == NULL);
  bertc_pool_destroy(NULL);
  printf("ok %llx\n", (unsigned long long)options.cpu_features);
  return 0;
}
