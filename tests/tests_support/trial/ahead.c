/* A clock that a test moves: what the wall clock says, plus the microseconds that stand in the
 * file CLOCK_AHEAD, which may be changed at any time. Clocks that only run are left alone. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const long long *ahead;

__attribute__((constructor)) static void open_file(void)
{
	const char *path = getenv("CLOCK_AHEAD");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *found = MAP_FAILED;

	if (file >= 0) {
		found = mmap(NULL, sizeof(long long), PROT_READ, MAP_SHARED, file, 0);
		close(file);
	}
	if (found != MAP_FAILED)
		ahead = found;
}

static int read_clock(clockid_t clock, struct timespec *now)
{
	int result = syscall(SYS_clock_gettime, clock, now);

	if (result == 0 && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
		long long by = *ahead, nanoseconds = now->tv_nsec + by % 1000000 * 1000;

		now->tv_sec += by / 1000000;
		if (nanoseconds < 0) {
			nanoseconds += 1000000000;
			now->tv_sec -= 1;
		} else if (nanoseconds >= 1000000000) {
			nanoseconds -= 1000000000;
			now->tv_sec += 1;
		}
		now->tv_nsec = nanoseconds;
	}
	return result;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	return read_clock(clock, now);
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec precise;
	int result = read_clock(CLOCK_REALTIME, &precise);

	(void)zone;
	if (result == 0 && now) {
		now->tv_sec = precise.tv_sec;
		now->tv_usec = precise.tv_nsec / 1000;
	}
	return result;
}

time_t time(time_t *where)
{
	struct timespec precise;

	if (read_clock(CLOCK_REALTIME, &precise) != 0)
		return -1;
	if (where)
		*where = precise.tv_sec;
	return precise.tv_sec;
}
