/* A host that runs lwIP on a tap interface, for tests: one TCP connection, over which it sends a file or takes one.
 *
 *     peer ADDRESS PREFIXLEN listen|connect PEER PORT send|take FILE
 *
 * PRECONFIGURED_TAPIF names the tap (lwIP's own variable). Prints "ready" once it listens or is about to connect, and
 * "done BYTES" at the end, when the connection is closed in both directions. Exit status 1 with a line on stderr if a
 * call fails.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>

#include "lwip/ip4_addr.h"
#include "lwip/netif.h"
#include "lwip/sockets.h"
#include "lwip/sys.h"
#include "lwip/tcpip.h"
#include "netif/tapif.h"

static char buffer[16384];

static void fail(const char *what)
{
    fprintf(stderr, "lwip peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void started(void *arg)
{
    sys_sem_signal((sys_sem_t *)arg);
}

static void bring_up(const char *address, int prefixlen)
{
    static struct netif tap;
    ip4_addr_t own, mask, gateway;
    sys_sem_t up;

    if (sys_sem_new(&up, 0) != ERR_OK)
        fail("sys_sem_new");
    tcpip_init(started, &up);
    sys_sem_wait(&up);
    if (!ip4addr_aton(address, &own))
        fail("address");
    ip4_addr_set_u32(&mask, lwip_htonl(0xFFFFFFFFu << (32 - prefixlen)));
    ip4_addr_set_zero(&gateway);
    LOCK_TCPIP_CORE();
    if (!netif_add(&tap, &own, &mask, &gateway, NULL, tapif_init, tcpip_input))
        fail("netif_add");
    netif_set_default(&tap);
    netif_set_link_up(&tap);
    netif_set_up(&tap);
    UNLOCK_TCPIP_CORE();
}

static int connected(int listens, const char *peer, int port)
{
    struct sockaddr_in address;
    int sock = lwip_socket(AF_INET, SOCK_STREAM, 0);

    if (sock < 0)
        fail("socket");
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = lwip_htons((u16_t)port);
    if (listens) {
        int accepted;
        if (lwip_bind(sock, (struct sockaddr *)&address, sizeof address) < 0)
            fail("bind");
        if (lwip_listen(sock, 1) < 0)
            fail("listen");
        printf("ready\n");
        accepted = lwip_accept(sock, NULL, NULL);
        if (accepted < 0)
            fail("accept");
        lwip_close(sock);
        return accepted;
    }
    address.sin_addr.s_addr = ipaddr_addr(peer);
    printf("ready\n");
    if (lwip_connect(sock, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");
    return sock;
}

static unsigned long send_file(int sock, FILE *file)
{
    unsigned long total = 0;
    size_t got;
    int answer;

    while ((got = fread(buffer, 1, sizeof buffer, file)) > 0) {
        size_t sent = 0;
        while (sent < got) {
            int n = (int)lwip_send(sock, buffer + sent, got - sent, 0);
            if (n <= 0)
                fail("send");
            sent += (size_t)n;
        }
        total += got;
    }
    if (lwip_shutdown(sock, SHUT_WR) < 0)
        fail("shutdown");
    answer = (int)lwip_recv(sock, buffer, sizeof buffer, 0); /* the peer's end: it has read everything */
    if (answer != 0)
        fail("recv instead of the end");
    return total;
}

static unsigned long take_file(int sock, FILE *file)
{
    unsigned long total = 0;
    int n;

    while ((n = (int)lwip_recv(sock, buffer, sizeof buffer, 0)) > 0) {
        if (fwrite(buffer, 1, (size_t)n, file) != (size_t)n)
            fail("write");
        total += (unsigned long)n;
    }
    if (n < 0)
        fail("recv");
    return total;
}

int main(int argc, char **argv)
{
    int sock, sends;
    FILE *file;
    unsigned long total;

    if (argc != 8) {
        fprintf(stderr, "usage: peer ADDRESS PREFIXLEN listen|connect PEER PORT send|take FILE\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    sends = !strcmp(argv[6], "send");
    file = fopen(argv[7], sends ? "rb" : "wb");
    if (!file)
        fail(argv[7]);
    bring_up(argv[1], atoi(argv[2]));
    sock = connected(!strcmp(argv[3], "listen"), argv[4], atoi(argv[5]));
    total = sends ? send_file(sock, file) : take_file(sock, file);
    if (fclose(file))
        fail("fclose");
    if (lwip_close(sock) < 0)
        fail("close");
    sys_msleep(500); /* our FIN, and what the peer may want to hear again */
    printf("done %lu\n", total);
    fflush(stdout);
    _Exit(0); /* lwIP's threads go on */
}
