/* Threads that connect again and again, amid forks, execs, dups, closes in other threads and a signal every 150 us.

       storm ADDRESS PORT THREADS CONNECTS restart|interrupt

   Each connection sends eight bytes of its own and must have them back. It says "ready" after a first one, "done N" at
   the end, where N descriptors are more than at first, and waits for a line after each. Exit status 1: a call failed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static struct sockaddr_in peer = {.sin_family = AF_INET};
static int turns;
static volatile sig_atomic_t signals;

static void on_alarm(int number) { (void)number; signals++; }

static void fail(const char *what) {
    fprintf(stderr, "storm: %s: %s\n", what, strerror(errno));
    _exit(1);
}

/* Under `lvlip run` a signal may interrupt calls that never wait on Linux, and a connect that has not begun yet
   (docs/run.md, "Gaps"): all are called again. */
#define AGAIN(call) ({ long got; while ((got = (call)) < 0 && errno == EINTR); got; })

static int connected(void) {
    int fd = AGAIN(socket(AF_INET, SOCK_STREAM, 0));
    if (fd < 0) fail("socket");
    if (AGAIN(connect(fd, (struct sockaddr *)&peer, sizeof peer)) < 0 && errno != EISCONN) fail("connect");
    return fd;
}

static void put(int fd, uint64_t word) {
    if (AGAIN(write(fd, &word, sizeof word)) != sizeof word) fail("write");
}

static void get(int fd, uint64_t word) {
    uint64_t back = 0;
    for (size_t have = 0; have < sizeof back;) {
        long got = AGAIN(read(fd, (char *)&back + have, sizeof back - have));
        if (got < 0) fail("read");
        if (got == 0) { errno = EPIPE; fail("the end comes before the answer"); }
        have += got;
    }
    if (back != word) { errno = EILSEQ; fail("another answer"); }
}

static void reap(pid_t child) {
    int status;
    if (AGAIN(waitpid(child, &status, 0)) < 0) fail("waitpid");
    if (status) { errno = ECHILD; fail("a child failed"); }
}

static void *closer(void *fd) { close((int)(intptr_t)fd); return NULL; }

static void turn(uint64_t word, int kind) {
    pid_t child;
    pthread_t other;
    int fd, copy;
    switch (kind) {
    case 0: /* as programs do */
        fd = connected();
        put(fd, word), get(fd, word), close(fd);
        break;
    case 1: /* the copy outlives what was copied */
        fd = connected();
        put(fd, word);
        copy = dup(fd);
        if (copy < 0) fail("dup");
        close(fd), get(copy, word), close(copy);
        break;
    case 2: /* the child has it alone */
        fd = connected();
        if ((child = fork()) < 0) fail("fork");
        if (!child) { put(fd, word), get(fd, word); _exit(0); }
        close(fd), reap(child);
        break;
    case 3: /* another thread closes a copy meanwhile */
        fd = connected();
        copy = fcntl(fd, F_DUPFD, 3);
        if (copy < 0) fail("F_DUPFD");
        if (pthread_create(&other, NULL, closer, (void *)(intptr_t)copy)) fail("pthread_create");
        put(fd, word), get(fd, word), close(fd);
        pthread_join(other, NULL);
        break;
    default: /* a program that knows nothing of it holds it for a moment */
        fd = connected();
        put(fd, word), get(fd, word);
        if ((child = vfork()) < 0) fail("vfork");
        if (!child) { execl("/bin/true", "true", NULL); _exit(1); }
        close(fd), reap(child);
    }
}

static void *worker(void *number) {
    for (int index = 0; index < turns; index++)
        turn((uint64_t)(intptr_t)number << 32 | index, index % 10 == 9 ? 4 : index % 4);
    return NULL;
}

static int descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;
    while (readdir(directory)) count++;
    closedir(directory);
    return count;
}

static void wait_for_line(void) {
    fflush(stdout);
    while (getchar() != '\n') clearerr(stdin);
}

int main(int argc, char *argv[]) {
    if (argc != 6) return 2;
    inet_pton(AF_INET, argv[1], &peer.sin_addr);
    peer.sin_port = htons(atoi(argv[2]));
    int threads = atoi(argv[3]);
    turns = atoi(argv[4]);
    turn(~(uint64_t)0, 0);
    int before = descriptors();
    puts("ready");
    wait_for_line();

    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = strcmp(argv[5], "restart") ? 0 : SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    pthread_t made[threads];
    for (intptr_t number = 0; number < threads; number++)
        if (pthread_create(&made[number], NULL, worker, (void *)number)) fail("pthread_create");
    sigset_t alarm_only; /* so that it is the workers that are interrupted */
    sigemptyset(&alarm_only), sigaddset(&alarm_only, SIGALRM), pthread_sigmask(SIG_BLOCK, &alarm_only, NULL);
    struct itimerval often = {{0, 150}, {0, 150}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    for (int number = 0; number < threads; number++) pthread_join(made[number], NULL);
    setitimer(ITIMER_REAL, &never, NULL);
    printf("done %d %d\n", descriptors() - before, (int)signals);
    wait_for_line();
    return 0;
}
