/* bertc_rt.h's pool on plain pthreads, one set of threads a call: for machines without a built runtime stub. */
#include "bertc_rt.h"
#include <pthread.h>
#include <stdlib.h>

struct bertc_pool {
    bertc_parallel parallel;
};

struct job {
    uint64_t next, ntasks;
    void (*fn)(void *, uint64_t, uint32_t);
    void *arg;
    pthread_mutex_t lock;
};

struct worker {
    struct job *job;
    uint32_t number;
};

static void *work(void *p) {
    struct worker *w = p;
    for (;;) {
        pthread_mutex_lock(&w->job->lock);
        uint64_t task = w->job->next++;
        pthread_mutex_unlock(&w->job->lock);
        if (task >= w->job->ntasks) return NULL;
        w->job->fn(w->job->arg, task, w->number);
    }
}

static void parallel_for(void *ctx, uint64_t ntasks, void (*fn)(void *, uint64_t, uint32_t), void *arg) {
    bertc_pool *pool = ctx;
    struct job job = {0, ntasks, fn, arg, PTHREAD_MUTEX_INITIALIZER};
    struct worker workers[8];
    pthread_t threads[8];
    uint32_t n = pool->parallel.max_workers < 8 ? pool->parallel.max_workers : 8;
    for (uint32_t i = 0; i < n; i++) {
        workers[i].job = &job;
        workers[i].number = i;
        if (i > 0 && pthread_create(&threads[i], NULL, work, &workers[i])) abort();
    }
    work(&workers[0]);
    for (uint32_t i = 1; i < n; i++) pthread_join(threads[i], NULL);
}

bertc_pool *bertc_pool_create(uint32_t threads) {
    bertc_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NULL;
    pool->parallel.ctx = pool;
    pool->parallel.max_workers = threads;
    pool->parallel.parallel_for = parallel_for;
    return pool;
}

void bertc_pool_destroy(bertc_pool *pool) { free(pool); }

const bertc_parallel *bertc_pool_parallel(bertc_pool *pool) { return &pool->parallel; }
