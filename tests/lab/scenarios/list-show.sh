# latchkey list and show: the same facts, for the owner and root; exit codes; what there is no latch for.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
pair_connects 8080 :: 10.9.0.2 canary-list
on a latchkey list --json >"$LAB/list"
id=$(/usr/bin/python3 -c "import json; print(json.load(open('$LAB/list'))['latches'][0]['id'])")
on a latchkey show "$id" --json >"$LAB/show"
expect_eq "show says what list says" "$(/usr/bin/python3 -c "import json
listed, shown = (json.load(open('$LAB/' + name)) for name in ('list', 'show'))
latch = shown['latch']
spis = [line.split()[2] for line in open('$LAB/sa.7') if line.startswith(('10.9.0.1 10.9.0.2', '10.9.0.2 10.9.0.1'))]
print(listed['schema'], listed['latches'] == [latch], latch['state'], latch['protocol'], latch['auth'], latch['reqid'],
      [int(latch[way], 16) for way in ('spi_out', 'spi_in')] == [int(spi, 16) for spi in spis],
      latch['uid'], latch['program'].startswith('/usr/bin/python3'), latch['policy'], latch['rule'], latch['protection'] == {
      'protocol': 'esp', 'mode': 'transport', 'encryption': 'aes-gcm-16', 'integrity': None, 'key_bits': 256,
      'replay': True, 'esn': False, 'qop': 'exact'}, latch['since'].endswith('Z'))" 2>&1)" \
  "1 True ESTABLISHED tcp manual 7 True 0 True out rule-out True True"
on a latchkey show "$id" >"$LAB/show"
check "a person can read it" grep -q bob "$LAB/show"
on a latchkey show 4711 >/dev/null 2>&1
expect_eq "no such latch" $? 1
on a latchkey show x >/dev/null 2>&1
expect_eq "no number" $? 2
on c latchkey list >/dev/null 2>&1
expect_eq "no broker" $? 3

# Others see their own alone.
nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
expect_eq "nobody sees nothing of root's" "$(on a "${nobody[@]}" latchkey list --json | "${python[@]}" "$programs/latches.py")" ""
on a "${nobody[@]}" latchkey show "$id" >/dev/null 2>&1
expect_eq "nor shows it" $? 1
_under="${nobody[*]} latchkey run -p $LAB/out.toml --"
mkfifo -m 666 "$LAB/theirs.in"
_answers[theirs]=0
# shellcheck disable=SC2086
bg a theirs $_under "${python[@]}" "$programs/sock.py" -i "$LAB/theirs.in" 'connect fd00::2 8080'
expect theirs ok
expect_eq "nobody sees its own" "$(on a "${nobody[@]}" latchkey list --json | "${python[@]}" "$programs/latches.py" | grep -c 'fd00::2 bob')" 1
want_latches a 2 'ESTABLISHED .*'
