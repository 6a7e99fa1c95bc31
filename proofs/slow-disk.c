/* A disk whose commits take longer, for `bench`: every fsync and fdatasync sleeps for so many milliseconds first.
 *
 *   cc -shared -fPIC -o /tmp/slow-disk.so proofs/slow-disk.c -ldl
 *   SLOW_DISK_MS=3 LD_PRELOAD=/tmp/slow-disk.so target/release/bench --only sqlite --storm-seconds 0
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_for_disk(void) {
    const char *text = getenv("SLOW_DISK_MS");
    usleep(1000 * (text ? atoi(text) : 0));
}

int fsync(int file) {
    wait_for_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
}

int fdatasync(int file) {
    wait_for_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(file);
}
