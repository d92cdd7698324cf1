/* A disk that breaks, for one process: after BROKEN_AFTER writes to files below BROKEN_FOLDER every further write and
   every fsync there fails with EIO. Preloaded: LD_PRELOAD=broken_disk.so. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static long n_writes;

static int breaks(int fd) {
    const char *folder = getenv("BROKEN_FOLDER"), *after = getenv("BROKEN_AFTER");
    char link[64], path[4096];
    if (!folder || !after) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    if (strncmp(path, folder, strlen(folder)) != 0 || path[strlen(folder)] != '/') return 0;
    if (__sync_add_and_fetch(&n_writes, 1) <= atol(after)) return 0;
    errno = EIO;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t n) { return breaks(fd) ? -1 : REAL(write)(fd, bytes, n); }
ssize_t writev(int fd, const struct iovec *parts, int n) { return breaks(fd) ? -1 : REAL(writev)(fd, parts, n); }
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
    return breaks(fd) ? -1 : REAL(pwrite64)(fd, bytes, n, at);
}
int fsync(int fd) { return breaks(fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return breaks(fd) ? -1 : REAL(fdatasync)(fd); }
