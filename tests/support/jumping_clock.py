"""A wall clock that jumps for one process: what libfaketime does, for the few calls that Python makes."""

import os
import shutil
import subprocess

SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <sys/time.h>

static long jump(void) {
    const char *path = getenv("CLOCK_JUMP_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    long seconds = 0;
    if (file) { if (fscanf(file, "%ld", &seconds) != 1) seconds = 0; fclose(file); }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, out);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) out->tv_sec += jump();
    return failed;
}

int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


def why_not():
    """Why no clock can be made to jump; None where one can."""
    return None if shutil.which("cc") else "there is no C compiler"


def jumping(folder):
    """Environment under which the wall clock is ahead by as many seconds as stand in `folder / "jump"`."""
    library = folder / "jump.so"
    (folder / "jump.c").write_text(SOURCE)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(folder / "jump.c"), "-ldl"], check=True, timeout=60
    )
    return {**os.environ, "LD_PRELOAD": str(library), "CLOCK_JUMP_FILE": str(folder / "jump")}
