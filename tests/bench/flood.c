/* Send frames that a host denies, and print how many and the median nanoseconds of one:
 *
 *     flood INTERFACE DESTINATION PROTOCOL FIRST LAST [SOURCE]
 *
 * DESTINATION is an address of IPv4 or IPv6. FIRST to LAST are destination ports, or ICMP types,
 * which come in no order: neighbours share chains and sets, and would find them in the CPU's
 * cache. Source ports vary, and sources unless one is given: all are new.
 * Over a veth pair the receiver's work is done in the sender's own time, on its own CPU, before
 * the next frame leaves: the time of a batch is what its packets cost. The median of the batches
 * does not see the few in which the CPU was lent to others.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 32, WARM_UP = 20, LEAST_BATCHES = 100, MOST_BATCHES = 2000, IP = 14, PAYLOAD = 20, MOST = 74 };
static const double LEAST_NANOSECONDS = 5e7;
static const uint8_t ETHERNET[IP] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};

/* Where a header of IPv4 or IPv6 has its source address, behind which its destination is. */
static const struct version {
    int family, header, source, address;
    uint8_t type[2], start[40];
} VERSIONS[] = {
    {AF_INET, 20, 12, 4, {8, 0}, {0x45, 0, 0, 20 + PAYLOAD, 0, 0, 0, 0, 64, 0, 0, 0, 10, 200}},
    {AF_INET6, 40, 8, 16, {0x86, 0xdd}, {0x60, 0, 0, 0, 0, PAYLOAD, 0, 64, 0xfd, 200}},
}, *version;

static uint8_t frames[BATCH][MOST];
static struct iovec parts[BATCH];
static struct mmsghdr messages[BATCH];
static int one_source;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static uint32_t sum(const uint8_t *bytes, int length) {
    uint32_t total = 0;
    for (int place = 0; place < length; place += 2)
        total += bytes[place] << 8 | bytes[place + 1];
    return total;
}

static void put(uint8_t *place, uint32_t value) {
    place[0] = value >> 8;
    place[1] = value;
}

static uint16_t checksum(uint32_t total) {
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return ~total;
}

static void write_frame(uint8_t *frame, uint32_t number, int protocol, uint32_t port) {
    uint8_t *ip = frame + IP, *body = ip + version->header, *source = ip + version->source;
    uint32_t mixed = number * 2654435761u;
    memset(body, 0, PAYLOAD);
    if (!one_source)
        put(source + version->address - 2, mixed >> 16); /* 10.200.0.0/16, or fdc8::/112 */
    if (version->family == AF_INET) {
        put(ip + 10, 0);
        put(ip + 10, checksum(sum(ip, version->header)));
    }
    uint32_t above = sum(source, 2 * version->address) + protocol + PAYLOAD;
    if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) {
        body[0] = port;
        put(body + 4, mixed);
        uint32_t covered = protocol == IPPROTO_ICMP ? 0 : above;
        put(body + 2, checksum(covered + sum(body, PAYLOAD)));
        return;
    }
    put(body, 1024 + number % 60000);
    put(body + 2, port);
    if (protocol == IPPROTO_UDP) {
        put(body + 4, PAYLOAD);
        put(body + 6, checksum(above + sum(body, PAYLOAD)));
    }
    if (protocol == IPPROTO_TCP) {
        body[12] = 5 << 4;
        body[13] = 0x02; /* SYN */
        put(body + 16, checksum(above + sum(body, PAYLOAD)));
    }
}

static int ascending(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

int main(int count, char **words) {
    if (count != 6 && count != 7) {
        fprintf(stderr, "usage: flood INTERFACE DESTINATION PROTOCOL FIRST LAST [SOURCE]\n");
        return 2;
    }
    int protocol = atoi(words[3]);
    one_source = count == 7;
    version = &VERSIONS[strchr(words[2], ':') != NULL];
    uint32_t first = atoi(words[4]), last = atoi(words[5]), number = 0;
    cpu_set_t cpu;
    CPU_ZERO(&cpu);
    CPU_SET(sysconf(_SC_NPROCESSORS_ONLN) - 1, &cpu);
    if (sched_setaffinity(0, sizeof cpu, &cpu))
        fail("sched_setaffinity");
    struct sockaddr_ll device = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(words[1])};
    int wire = socket(AF_PACKET, SOCK_RAW, 0);
    if (wire < 0 || bind(wire, (struct sockaddr *)&device, sizeof device))
        fail("packet socket");
    for (int place = 0; place < BATCH; place++) {
        uint8_t *ip = frames[place] + IP, *source = ip + version->source;
        memcpy(frames[place], ETHERNET, IP);
        memcpy(ip - 2, version->type, 2);
        memcpy(ip, version->start, version->header);
        ip[version->family == AF_INET ? 9 : 6] = protocol;
        if (inet_pton(version->family, words[2], source + version->address) != 1)
            fail("destination");
        if (one_source && inet_pton(version->family, words[6], source) != 1)
            fail("source");
        parts[place] = (struct iovec){frames[place], IP + version->header + PAYLOAD};
        messages[place].msg_hdr = (struct msghdr){.msg_iov = &parts[place], .msg_iovlen = 1};
    }
    static double taken[MOST_BATCHES];
    int batches = 0;
    double all = 0;
    for (int batch = -WARM_UP; batches < MOST_BATCHES; batch++) {
        if (batches >= LEAST_BATCHES && all >= LEAST_NANOSECONDS)
            break;
        for (int place = 0; place < BATCH; place++, number++)
            write_frame(frames[place], number, protocol,
                        first + (number * 2246822519u >> 8) % (last - first + 1));
        double started = now();
        if (sendmmsg(wire, messages, BATCH, 0) != BATCH)
            fail("sendmmsg");
        if (batch >= 0) {
            taken[batches] = now() - started;
            all += taken[batches++];
        }
    }
    qsort(taken, batches, sizeof *taken, ascending);
    printf("%u %.1f\n", number, taken[batches / 2] / BATCH);
    return 0;
}
