// Closes a program's TCP or UDP socket before the program is answered, on the broker's own thread.
//
// A socket that the broker still holds when the program goes on would keep its port taken and its
// FIN unsent for that while. Closing one can wait (SO_LINGER, inet_release()): a socket that says
// it would is left to server/offload.h. Between the question and the close a hostile program can
// change the answer; a timer then interrupts the wait.
#ifndef TOOLS_LATCHKEYD_KERNEL_PROMPT_CLOSE_H_
#define TOOLS_LATCHKEYD_KERNEL_PROMPT_CLOSE_H_

#include <time.h>

#include <optional>

namespace latchkey::broker {

class PromptClose {
 public:
  // For the thread that makes it, and no other. Takes SIGALRM for the whole process.
  PromptClose();
  ~PromptClose();
  PromptClose(const PromptClose&) = delete;
  PromptClose& operator=(const PromptClose&) = delete;

  // Closes `fd` if it is a TCP socket that does not linger, or a UDP one; false, and it is open
  // still, otherwise.
  bool Close(int fd);
  // Closes `fd`, whatever it is, and waits no longer than some 20 ms for it. False: not closed.
  bool CloseAnyway(int fd);

 private:
  std::optional<timer_t> timer_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_PROMPT_CLOSE_H_
