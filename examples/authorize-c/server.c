/* authorize-c PORT NAME...: greets those of its peers that it knows by name, and nobody else.
 *
 * The policy (server.toml) says who may connect at all; this program decides what each of them may
 * do. It needs nothing but the socket it has: the peer's name is asked of that. */
#define _POSIX_C_SOURCE 200809L

#include "latchkey.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Writes the peer's name, with its NUL. 0, or -1 for whoever has none: not latched, or in clear. */
static int peer_of(int fd, char name[LATCHKEY_ID_MAX + 1]) {
  int state = -1;
  socklen_t length = sizeof(state);
  if (getsockopt(fd, SOL_LATCHKEY, LATCHKEY_STATE, &state, &length) < 0 ||
      state != LATCHKEY_ESTABLISHED) {
    return -1;
  }
  length = LATCHKEY_ID_MAX;
  if (getsockopt(fd, SOL_LATCHKEY, LATCHKEY_PEER_ID, name, &length) < 0) return -1;
  name[length] = '\0';
  return 0;
}

static int known(const char *name, char **names, int count) {
  for (int i = 0; i < count; ++i) {
    if (strcmp(names[i], name) == 0) return 1;
  }
  return 0;
}

static void serve(int fd, char **names, int count) {
  char name[LATCHKEY_ID_MAX + 1];
  char answer[LATCHKEY_ID_MAX + 256];
  struct latchkey_info info = {0};
  socklen_t length = sizeof(info);
  if (peer_of(fd, name) < 0) {
    snprintf(answer, sizeof(answer), "403 nobody is behind this connection\n");
  } else if (!known(name, names, count)) {
    snprintf(answer, sizeof(answer), "403 not for %s\n", name);
  } else if (getsockopt(fd, SOL_LATCHKEY, LATCHKEY_INFO, &info, &length) < 0) {
    snprintf(answer, sizeof(answer), "500 %s\n", strerror(errno));
  } else {
    snprintf(answer, sizeof(answer), "200 welcome, %s (%s, %s, %u bits)\n", name, info.auth,
             info.encryption, info.key_bits);
  }
  printf("%s", answer);
  fflush(stdout);
  if (send(fd, answer, strlen(answer), MSG_NOSIGNAL) < 0) perror("send");
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: authorize-c PORT NAME...\n");
    return 2;
  }
  const int listener = socket(AF_INET6, SOCK_STREAM, 0);
  const int on = 1;
  struct sockaddr_in6 address = {0};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons((unsigned short)atoi(argv[1]));
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 8) < 0) {
    perror("listen");
    return 1;
  }
  for (;;) {
    const int fd = accept(listener, NULL, NULL);
    if (fd < 0) {
      perror("accept");
      continue;
    }
    serve(fd, argv + 2, argc - 2);
    close(fd);
  }
}
