# Answers to "why?": explain over the SPD and SAD as they are, why with the last refusals, list --spd with owners.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

pair_policies
manual_sa a b 7 alice bob
spd_port a "10.9.0.1 10.9.0.2" 8081 theirs esp 7
spd_port a "10.9.0.1 10.9.0.2" 8082 theirs block
start_broker a
explain() { on a latchkey explain "$@" >"$LAB/said"; }
says() { grep -qE "$2" "$LAB/said" || fail "$1: $(cat "$LAB/said")"; echo "good: $1"; }
explain -p "$LAB/out.toml" --out tcp 10.9.0.2 8080
expect_eq "yes" $? 0
says "over what is there" '^facts: +the SPD and SAD as they are'
says "the rule" '^rule: +.*out.toml:[0-9]+: rule "rule-out", protect$'
says "the SA and who is behind it" '^SA: +esp transport aes-gcm-16:256 replay, reqid 7, SPI 0x[0-9a-f]+, peer "bob"$'
says "the decision" '^decision: PROTECT$'
explain -p "$LAB/out.toml" --out tcp 10.9.0.3 8080
expect_eq "no SA" $? 1
says "its reason and errno" '^decision: REFUSED: no-sa \(ENOKEY\)$'
says "what to change" '^to change: install SAs'
explain --out tcp 10.9.0.2 8081
expect_eq "the system's alone" $? 0
says "implicitly" '^decision: PROTECT: implicitly, because the system asks$'
says "the SPD entry" '^system: +protect, SPD: out priority 0 10\.9\.0\.1/32 -> 10\.9\.0\.2/32 port 8081 tcp: esp transport reqid 7$'
printf 'latchkey = 1\napplication = "x"\n[[rule]]\nname = "free"\naction = "bypass"\n' >"$LAB/bypass.toml"
explain -p "$LAB/bypass.toml" --out tcp b 8081 --user 1000
expect_eq "a host name, another user" $? 1
says "the privilege" '^decision: REFUSED: unprivileged-bypass \(EACCES\)$'
explain -p "$LAB/bypass.toml" --out tcp 10.9.0.2 8082
says "root's grants" '^decision: CLEAR: by a grant'
explain -p "$LAB/bypass.toml" --out tcp 10.9.0.2 8082 --user 1000 --json
expect_eq "JSON" "$(grep -cE '"reason": "policy-discard"|"decision": "REFUSED"' "$LAB/said")" 2
on a setpriv --reuid=1000 --clear-groups latchkey explain -p "$LAB/out.toml" --out tcp 10.9.0.2 8080 >"$LAB/said"
says "to others than root it answers from the files, and says so" '^facts: +files alone, no SPD and no SAs: the broker tells what the SPD and SAD hold to root alone$'
says "and by the PAD" '^PAD: +/etc/latchkey/pad\.toml: reqid 7 is "bob"$'
# What explain says is what happens.
expect_eq "refused indeed" "$(as a 1000 "$LAB/bypass.toml" 'connect 10.9.0.2 8081')" "= connect: EACCES"
expect_eq "so is this" "$(once_latched a "$LAB/out.toml" 'connect 10.9.0.3 8080')" "= connect: ENOKEY"
on a latchkey why >"$LAB/said"
says "why: the last of all, and its rule" 'refused no-sa tcp .* -> 10\.9\.0\.3:8080 program .*python.* pid [0-9]+ policy out by .*/out\.toml:[0-9]+: rule "rule-out": '
says "and the one before" 'refused unprivileged-bypass tcp .* -> 10\.9\.0\.2:8081 .* by .*/bypass\.toml:3: rule "free": rule free$'
expect_eq "JSON has the rule" "$(on a latchkey why --json | grep -cE '"rule": ".*/out.toml:[0-9]+: rule \\"rule-out\\"",')" 1
pid=$(sed -n 's/.*refused no-sa.* pid \([0-9]*\) .*/\1/p' "$LAB/said")
expect_eq "of one process" "$(on a latchkey why "$pid" | wc -l)" 1
expect_eq "users see their own" "$(on a setpriv --reuid=1000 --clear-groups latchkey why | grep -c unprivileged-bypass)" 1
expect_eq "and no other's" "$(on a setpriv --reuid=1000 --clear-groups latchkey why | grep -c no-sa)" 0
on a latchkey why 1 >/dev/null 2>&1
expect_eq "nothing of process 1" $? 1
on a ip xfrm policy add src 10.9.0.1 dst 10.9.0.3 proto tcp dport 8083 dir out tmpl proto esp reqid 8 mode transport
expect_eq "without a policy" "$(on a latchkey run -- "${python[@]}" "$programs/sock.py" 'connect 10.9.0.3 8083')" "= connect: ENOKEY"
on a latchkey why >"$LAB/said"
says "what the system asks" 'refused no-sa tcp .* -> 10\.9\.0\.3:8083 .* by SPD entry [0-9]+: '
on a ip xfrm policy delete src 10.9.0.1 dst 10.9.0.3 proto tcp dport 8083 dir out
# Weak protection and the wrong peer, with their rule.
for refusal in weak-protection peer-mismatch; do
  sed 's/aes-gcm-16/chacha20-poly1305/' "$LAB/out.toml" >"$LAB/weak-protection.toml"
  sed 's/"bob"/"carol"/' "$LAB/out.toml" >"$LAB/peer-mismatch.toml"
  once_latched a "$LAB/$refusal.toml" 'connect 10.9.0.2 8080' >/dev/null
  on a latchkey why >"$LAB/said"
  says "$refusal, and its rule" "refused $refusal tcp .* -> 10\\.9\\.0\\.2:8080 .* by .*/$refusal\\.toml:[0-9]+: rule \"rule-out\": "
done
# list --spd: nothing in the SPD without an owner, nothing on a socket unseen.
start_broker b
serve b srv "$LAB/in.toml" 10.9.0.2 8080
latched a cli "$LAB/out.toml" 'connect 10.9.0.2 8080'
expect cli ok
on a latchkey list --spd >"$LAB/said"
says "the system's" '^system +out +0 +- +tcp +10\.9\.0\.1/32 +10\.9\.0\.2/32 port 8081 +esp transport reqid 7$'
says "a guard's" '^guard +out +2 +0x80000000/0x80000000 +any +any +any +block$'
says "a latch's" '^latch [0-9]+ +out +0 +0x80000000/0x80000000 +tcp .* port 8080 +esp transport reqid 7$'
says "a socket's own" '^latch [0-9]+ +socket .* 10\.9\.0\.2:8080 +esp transport reqid 7$'
expect_eq "as many as the kernel has" "$(grep -cE ' (in|out|fwd) ' "$LAB/said")" "$(on a ip xfrm policy | grep -v socket | grep -c 'dir \(in\|out\|fwd\)')"
expect_eq "JSON" "$(on a latchkey list --spd --json | grep -c '"owner": "system"')" 4
impostor
retry 10 grep -q 'conflict-sa' "$LAB/broker-a.log"
on a latchkey why >"$LAB/said"
says "a break, and its rule" 'broke latch [0-9]+ conflict-sa .* by .*/out\.toml:[0-9]+: rule "rule-out": rule rule-out$'
id=$(sed -n 's/.*broke latch \([0-9]*\) .*/\1/p' "$LAB/said")
expect_eq "of one latch" "$(on a latchkey why "$id" | grep -c "broke latch $id conflict-sa")" 1
expect_eq "why in JSON" "$(on a latchkey why "$id" --json | grep -cE '"what": "broke"|"reason": "conflict-sa"|"latch": '"$id"',')" 3
# Without a broker it answers from the files, and says so.
stop_broker a
explain -p "$LAB/out.toml" --out tcp 10.9.0.2 8080
expect_eq "from the files" $? 0
says "and says so" '^facts: +files alone, no SPD and no SAs: no broker'
