// Drives a fuzz target without libFuzzer, for the compiler that everything is built with: every
// file of a corpus, then a fixed number of inputs made of them, the same ones each time.
//
// Usage: NAME_test FOLDER COUNT. An input that takes more than a second ends the test, as does what
// the target or a sanitizer aborts on; the input is printed then.
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kLongest = 8192;
const std::string* current = nullptr;

void Tell(int) {
  const char text[] = "aborted or slow; the input in hexadecimal:\n";
  (void)!write(2, text, sizeof(text) - 1);
  for (const char c : *current) {
    const auto octet = static_cast<unsigned char>(c);
    const char pair[2] = {"0123456789abcdef"[octet >> 4], "0123456789abcdef"[octet & 15]};
    (void)!write(2, pair, 2);
  }
  (void)!write(2, "\n", 1);
  _exit(1);
}

void Run(const std::string& input) {
  current = &input;
  // A second of our own time: what else the machine does must not count.
  const itimerval second{{}, {1, 0}};
  const itimerval never{};
  setitimer(ITIMER_PROF, &second, nullptr);
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
  setitimer(ITIMER_PROF, &never, nullptr);
}

std::string Mutate(const std::vector<std::string>& corpus, std::mt19937& random) {
  const auto below = [&random](size_t limit) { return limit == 0 ? 0 : random() % limit; };
  std::string input = corpus[below(corpus.size())];
  for (size_t rounds = 1 + below(4); rounds > 0; --rounds) {
    const size_t place = below(input.size() + 1);
    const std::string& other = corpus[below(corpus.size())];
    const size_t from = below(other.size() + 1);
    switch (below(7)) {
      case 0:
        if (place < input.size()) input[place] = static_cast<char>(input[place] ^ 1 << below(8));
        break;
      case 1:
        if (place < input.size()) input[place] = static_cast<char>(below(256));
        break;
      case 2:
        input.insert(place, 1, static_cast<char>(below(256)));
        break;
      case 3:
        input.erase(place, 1 + below(16));
        break;
      case 4:
        input.insert(place, other, from, below(64));
        break;
      case 5:
        input = input.substr(0, place) + other.substr(from);
        break;
      default:
        input.insert(place, input.substr(place, below(64)));
    }
  }
  if (input.size() > kLongest) input.resize(kLongest);
  return input;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  signal(SIGPROF, Tell);
  signal(SIGABRT, Tell);
  std::vector<std::string> corpus;
  for (const auto& file : std::filesystem::directory_iterator(argv[1])) {
    std::ifstream in(file.path(), std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  if (corpus.empty()) return 2;
  std::ranges::sort(corpus);  // a folder has no order
  for (const std::string& input : corpus) Run(input);
  std::mt19937 random(5660);
  const int count = std::atoi(argv[2]);
  for (int i = 0; i < count; ++i) Run(Mutate(corpus, random));
  std::printf("%zu of the corpus and %d made of it\n", corpus.size(), count);
  return count >= 1000 ? 0 : 2;
}
