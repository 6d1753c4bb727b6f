/* A loop whose steps run on several threads. Each thread has its own scratch memory. */
#ifndef THREADS_H
#define THREADS_H
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_THREADS 64

typedef void (*Step)(void *work, int64_t index, float *scratch);

typedef struct {
    Step step;
    void *work;
    int64_t count, scratch_floats;
    int64_t next; /* first step that no thread has taken */
    int failed;
} Loop;

static void *run_steps(void *argument) {
    Loop *loop = argument;
    float *scratch = NULL;
    if (loop->scratch_floats) {
        int64_t bytes = (loop->scratch_floats * (int64_t)sizeof(float) + 63) / 64 * 64;
        scratch = aligned_alloc(64, bytes);
        if (!scratch) {
            __atomic_store_n(&loop->failed, 1, __ATOMIC_RELAXED);
            return NULL;
        }
        memset(scratch, 0, bytes);
    }
    for (;;) {
        int64_t index = __atomic_fetch_add(&loop->next, 1, __ATOMIC_RELAXED);
        if (index >= loop->count) break;
        loop->step(loop->work, index, scratch);
    }
    free(scratch);
    return NULL;
}

/* Run steps 0 to count - 1; returns 0, or 1 when memory for a thread ran out. */
static int run_loop(Step step, void *work, int64_t count, int64_t scratch_floats, int64_t threads) {
    Loop loop = {step, work, count, scratch_floats, 0, 0};
    pthread_t others[MAX_THREADS];
    int64_t started = 0;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    if (threads > count) threads = count;
    while (started < threads - 1 && !pthread_create(&others[started], NULL, run_steps, &loop)) started++;
    run_steps(&loop);
    while (started) pthread_join(others[--started], NULL);
    return loop.failed;
}
#endif
