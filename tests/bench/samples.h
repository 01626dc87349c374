/* What the benches that are programs share: times in milliseconds, and a row of the table. */
#ifndef BENCH_SAMPLES_H
#define BENCH_SAMPLES_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline double samples_now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static inline int samples_by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static inline void samples_print(const char *label, double *samples, size_t count)
{
	qsort(samples, count, sizeof *samples, samples_by_size);
	printf("%-44s median %6.2f ms   p95 %6.2f   max %6.2f   (%zu)\n", label, samples[count / 2],
	       samples[count * 95 / 100], samples[count - 1], count);
}

#endif
