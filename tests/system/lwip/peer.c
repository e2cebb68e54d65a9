/* A host that runs lwIP on a tap interface, for tests: one TCP connection, over which it sends a file or takes one.
 *
 *     peer TAP ADDRESS PREFIXLEN listen|connect PEER PORT send|take FILE
 *
 * The tap exists and is up. Prints "ready" once it listens or is about to connect, and
 * "done BYTES" at the end, when the connection is closed in both directions. Exit status 1 with a line on stderr if a
 * call fails.
 *
 * The interface is ours, not lwIP's tapif: that one receives into pbufs of the pool (PBUF_POOL), which Debian's library
 * makes for 592 bytes and fills with 1,514 (memp.c and pbuf.c were built with different sizes), until malloc notices.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lwip/etharp.h"
#include "lwip/ip4_addr.h"
#include "lwip/netif.h"
#include "lwip/sockets.h"
#include "lwip/sys.h"
#include "lwip/tcpip.h"
#include "netif/ethernet.h"

#define MTU 1500
#define FRAME (MTU + 14)

static char buffer[16384];
static int tap_fd;

static void fail(const char *what)
{
    fprintf(stderr, "lwip peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* The interface: frames of the tap, one read or write each. */

static err_t output(struct netif *netif, struct pbuf *p)
{
    char frame[FRAME];
    u16_t length = pbuf_copy_partial(p, frame, sizeof frame, 0);

    (void)netif;
    if (write(tap_fd, frame, length) != (ssize_t)length)
        return ERR_IF; /* the tap's queue is full: lost, as on a wire */
    return ERR_OK;
}

static void receive(void *arg)
{
    struct netif *netif = arg;
    char frame[FRAME];

    for (;;) {
        ssize_t length = read(tap_fd, frame, sizeof frame);
        struct pbuf *p;

        if (length <= 0)
            fail("read from the tap");
        p = pbuf_alloc(PBUF_RAW, (u16_t)length, PBUF_RAM);
        if (!p)
            continue; /* no memory: lost, as in a network card */
        pbuf_take(p, frame, (u16_t)length);
        if (netif->input(p, netif) != ERR_OK)
            pbuf_free(p);
    }
}

static err_t tap_init(struct netif *netif)
{
    static const u8_t address[6] = {0x02, 0x6c, 0x77, 0x49, 0x50, 0x01};

    netif->name[0] = 't';
    netif->name[1] = 'p';
    netif->output = etharp_output;
    netif->linkoutput = output;
    netif->mtu = MTU;
    netif->hwaddr_len = sizeof address;
    memcpy(netif->hwaddr, address, sizeof address);
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
    return ERR_OK;
}

static void open_tap(const char *name)
{
    struct ifreq request;

    tap_fd = open("/dev/net/tun", O_RDWR);
    if (tap_fd < 0)
        fail("/dev/net/tun");
    memset(&request, 0, sizeof request);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    if (ioctl(tap_fd, TUNSETIFF, &request) < 0)
        fail(name);
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
    if (!netif_add(&tap, &own, &mask, &gateway, NULL, tap_init, tcpip_input))
        fail("netif_add");
    netif_set_default(&tap);
    netif_set_link_up(&tap);
    netif_set_up(&tap);
    UNLOCK_TCPIP_CORE();
    sys_thread_new("tap", receive, &tap, 0, 0);
}

static void send_at_once(int sock)
{
    int on = 1;

    /* else each write ends with a partial segment that waits for the peer's delayed ACK (RFC 9293 3.7.4) */
    if (lwip_setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        fail("TCP_NODELAY");
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
        send_at_once(accepted);
        return accepted;
    }
    address.sin_addr.s_addr = ipaddr_addr(peer);
    printf("ready\n");
    if (lwip_connect(sock, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");
    send_at_once(sock);
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

    if (argc != 9) {
        fprintf(stderr, "usage: peer TAP ADDRESS PREFIXLEN listen|connect PEER PORT send|take FILE\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    sends = !strcmp(argv[7], "send");
    file = fopen(argv[8], sends ? "rb" : "wb");
    if (!file)
        fail(argv[8]);
    open_tap(argv[1]);
    bring_up(argv[2], atoi(argv[3]));
    sock = connected(!strcmp(argv[4], "listen"), argv[5], atoi(argv[6]));
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
