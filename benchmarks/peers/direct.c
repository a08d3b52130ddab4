/* Reads single feature rows past the page cache: many threads, each with one request of one or two pages in flight. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAGE = 4096, SHARE = 256 };

struct work {
    int fd;
    const int64_t *row;   /* ascending */
    const int64_t *place; /* where each row goes in out */
    int64_t num_rows, row_bytes;
    char *out;
    int64_t taken, device_bytes; /* shared counters */
    int error;
};

static void *reader(void *argument)
{
    struct work *work = argument;
    int64_t most = (work->row_bytes / PAGE + 2) * PAGE, done = 0;
    char *pages;
    if (posix_memalign((void **)&pages, PAGE, most)) {
        work->error = ENOMEM;
        return NULL;
    }
    for (;;) {
        int64_t index = __atomic_fetch_add(&work->taken, SHARE, __ATOMIC_RELAXED);
        int64_t stop = index + SHARE < work->num_rows ? index + SHARE : work->num_rows;
        int64_t from = 0, to = 0; /* bytes of the file that lie in pages */
        if (index >= work->num_rows)
            break;
        for (; index < stop; index++) {
            int64_t begin = work->row[index] * work->row_bytes, end = begin + work->row_bytes;
            if (begin < from || end > to) { /* rows on the page read last need no read of their own */
                from = begin / PAGE * PAGE;
                to = (end + PAGE - 1) / PAGE * PAGE;
                ssize_t got = pread(work->fd, pages, to - from, from);
                if (got < end - from) {
                    work->error = got < 0 ? errno : EIO;
                    free(pages);
                    return NULL;
                }
                done += to - from;
            }
            memcpy(work->out + work->place[index] * work->row_bytes, pages + (begin - from), work->row_bytes);
        }
    }
    free(pages);
    __atomic_fetch_add(&work->device_bytes, done, __ATOMIC_RELAXED);
    return NULL;
}

/* Write row[i] of the file into out[place[i]]; return 0 or an errno. */
int read_rows(int fd, const int64_t *row, const int64_t *place, int64_t num_rows, int64_t row_bytes, char *out,
              int threads, int64_t *device_bytes)
{
    struct work work = {fd, row, place, num_rows, row_bytes, out, 0, 0, 0};
    pthread_t thread[64];
    int started = 0;
    while (started < threads && started < 64 && !pthread_create(&thread[started], NULL, reader, &work))
        started++;
    if (!started)
        return EAGAIN;
    for (int index = 0; index < started; index++)
        pthread_join(thread[index], NULL);
    *device_bytes += work.device_bytes;
    return work.error;
}
