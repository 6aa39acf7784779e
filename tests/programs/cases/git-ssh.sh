# git over OpenSSH: refs, a clone, a push into a bare repository, a refused connection. A branch's name is the canary.
needs='git ssh ssh-keygen /usr/sbin/sshd'
serve() {
  local key work=$folder/work
  export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null HOME=$folder
  git init -q -b main "$work"
  seq 20000 >"$work/numbers"
  git -C "$work" add numbers
  git -C "$work" -c user.name=n -c user.email=n@example commit -q -m one
  git clone -q --bare "$work" "$folder/bare"
  git -C "$folder/bare" branch "$canary"
  for key in host user; do ssh-keygen -q -t ed25519 -N '' -C '' -f "$folder/$key"; done
  cp "$folder/user.pub" "$folder/authorized"
  printf '%s\n' "HostKey $folder/host" "AuthorizedKeysFile $folder/authorized" 'StrictModes no' 'UsePAM no' \
    'PidFile none' "Port $port" >"$folder/conf"
  echo "them $(cat "$folder/host.pub")" >"$folder/known"
  on b mkdir -p /run/sshd
  b srv /usr/sbin/sshd -D -e -f "$folder/conf"
  wait_listen b "$port"
}
talk() {
  export GIT_SSH_COMMAND="ssh -F none -i $folder/user -o UserKnownHostsFile=$folder/known -o HostKeyAlias=them -o StrictHostKeyChecking=yes -o LogLevel=ERROR"
  a git ls-remote --heads "ssh://root@10.9.0.2:$port$folder/bare" | cut -f 2-
  a git ls-remote --heads "ssh://root@[fd00::2]:$port$folder/bare" | cut -f 2-
  a git clone -q "ssh://root@b:$port$folder/bare" "$folder/clone"
  md5sum <"$folder/clone/numbers"
  seq 40000 >"$folder/clone/numbers"
  git -C "$folder/clone" -c user.name=n -c user.email=n@example commit -q -a -m two
  a git -C "$folder/clone" push -q origin main:more
  git -C "$folder/bare" show more:numbers | md5sum
  a git ls-remote "ssh://root@10.9.0.2:9$folder/bare"
  a git ls-remote "ssh://root@10.9.0.2:$port$folder/none"
}
