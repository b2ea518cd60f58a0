/* What holds a pod's namespaces: it does nothing, collects what its pod's processes leave behind when they share one
   namespace of processes, and ends when it is asked to. */
#include <signal.h>
#include <unistd.h>

static void end(int number) {
  (void)number;
  _exit(0);
}

int main(void) {
  struct sigaction action = {.sa_handler = end};
  struct sigaction ignored = {.sa_handler = SIG_IGN, .sa_flags = SA_NOCLDWAIT};
  /* Process 1 gets no signal that it has no handler for. */
  if (sigaction(SIGTERM, &action, 0) < 0 || sigaction(SIGINT, &action, 0) < 0) return 1;
  if (sigaction(SIGCHLD, &ignored, 0) < 0) return 1;
  for (;;) pause();
}
