/* How fast the runtime stub's threads take up work, and what they cost when there is none.
 *
 *   cc -O2 -I runtime-stub/include testsuite/benches/wakeup.c target/release/libbertc_rt.a -pthread -o wakeup && ./wakeup
 */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include "bertc_rt.h"

enum { RUNS = 400 };

static double microseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec * 1e-3;
}

static void rest(double us) {
  struct timespec t = {(time_t)(us / 1e6), (long)(us * 1e3) % 1000000000};
  nanosleep(&t, NULL);
}

static double began[2];
static uint32_t by[2];

/* A task that is long enough for the other thread to come. */
static void task(void *arg, uint64_t t, uint32_t worker) {
  double length = *(double *)arg;
  began[t] = microseconds();
  by[t] = worker;
  while (microseconds() - began[t] < length) { }
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(void) {
  bertc_pool *pool = bertc_pool_create(2);
  const bertc_parallel *p = bertc_pool_parallel(pool);
  static const double pauses[] = {0, 100, 1000, 10000};
  double length = 3000, delays[RUNS];
  printf("pause before  median delay  90th percentile  runs that both threads took\n");
  for (int i = 0; i < 4; i++) {
    int n = 0;
    for (int r = 0; r < RUNS / (i + 1); r++) {
      if (pauses[i] > 0) rest(pauses[i]);
      double start = microseconds();
      p->parallel_for(p->ctx, 2, task, &length);
      if (by[0] != by[1]) delays[n++] = (by[0] ? began[0] : began[1]) - start;
    }
    qsort(delays, n, sizeof *delays, ascending);
    printf("%9.0f us  %9.1f us  %12.1f us  %d of %d\n", pauses[i], n ? delays[n / 2] : 0, n ? delays[n * 9 / 10] : 0, n,
           RUNS / (i + 1));
  }
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  rest(1e6);
  getrusage(RUSAGE_SELF, &after);
  double used = (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1e6 + after.ru_utime.tv_usec - before.ru_utime.tv_usec;
  printf("a second without work takes %.0f us of CPU\n", used);
  bertc_pool_destroy(pool);
  return 0;
}
