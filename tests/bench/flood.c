/* Send frames that a host denies, and print how many and the median nanoseconds of one:
 *
 *     flood INTERFACE DESTINATION PROTOCOL FIRST LAST [SOURCE]
 *
 * FIRST to LAST are destination ports, or ICMP types, which come in no order: neighbours share
 * chains and sets, and would find them in the CPU's cache. Source ports vary, and sources unless
 * one is given: all are new.
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

enum { BATCH = 32, WARM_UP = 20, LEAST_BATCHES = 100, MOST_BATCHES = 2000, IP = 14, BODY = 34, SIZE = 54 };
static const double LEAST_NANOSECONDS = 5e7;
static const uint8_t ETHERNET[IP] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0};

static uint8_t frames[BATCH][SIZE];
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
    uint8_t *ip = frame + IP, *body = frame + BODY;
    uint32_t mixed = number * 2654435761u;
    memset(body, 0, SIZE - BODY);
    put(ip + 10, 0);
    if (!one_source)
        put(ip + 14, mixed >> 16); /* 10.200.0.0/16 */
    put(ip + 10, checksum(sum(ip, 20)));
    if (protocol == IPPROTO_ICMP) {
        body[0] = port;
        put(body + 4, mixed);
        put(body + 2, checksum(sum(body, SIZE - BODY)));
        return;
    }
    put(body, 1024 + number % 60000);
    put(body + 2, port);
    if (protocol == IPPROTO_UDP)
        put(body + 4, SIZE - BODY); /* a checksum of 0 is none */
    if (protocol == IPPROTO_TCP) {
        body[12] = 5 << 4;
        body[13] = 0x02; /* SYN */
        put(body + 16, checksum(sum(ip + 12, 8) + protocol + SIZE - BODY + sum(body, SIZE - BODY)));
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
        uint8_t header[20] = {0x45, 0, 0, SIZE - IP, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 200};
        if (inet_pton(AF_INET, words[2], header + 16) != 1)
            fail("destination");
        if (one_source && inet_pton(AF_INET, words[6], header + 12) != 1)
            fail("source");
        memcpy(frames[place], ETHERNET, IP);
        memcpy(frames[place] + IP, header, sizeof header);
        parts[place] = (struct iovec){frames[place], SIZE};
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
