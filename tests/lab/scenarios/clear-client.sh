# A clear client gets neither a connection nor an answer from a latched server, before and after latched ones.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
control wire
serve b only6 "$LAB/in.toml" ::only 8081
serve b four "$LAB/in.toml" 10.9.0.2 8082
refuses_clear c fd00::2 8081
refuses_clear c 10.9.0.2 8082
pair_connects 8080 0.0.0.0 10.9.0.2 canary-latched
refuses_clear c 10.9.0.2 8080
# One whose address has SAs, but who does not use them, is no better off.
refuses_clear a 10.9.0.2 8080
refuses_clear a 10.9.0.2 8082
refuses_clear a fd00::2 8081
for log in only6 four; do
  expect_eq "$log saw nobody" "$(grep -c accepted "$LAB/$log.log")" 0
done
expect_eq "the server saw one client" "$(grep -c accepted "$LAB/srv8080.log")" 1
expect_eq "no answer in clear" "$(packets wire 'src portrange 8080-8089')" 0
expect_eq "nothing of the canary in clear" "$(clear_octets wire canary-latched)" 0
want cli8080 'echo canary-latched' canary-latched
