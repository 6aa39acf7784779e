// Rules that are wrong: where it stands and what is said.
#include "policy/parse_error_fixture.h"

namespace latchkey::policy {
namespace {

TEST_CASE("A mode of \"any\" cannot be asked of incoming connections") {
  const std::string any = kProtection + "mode = \"any\"\n[[rule]]\naction = \"protect\"\n";
  const std::string says =
      ": protection is \"x\", whose mode is \"any\": expected a mode of \"transport\" or "
      "\"tunnel\" for incoming connections, or direction = \"out\"";
  Check({
      {any + "protection = \"x\"", {"p:8:14" + says}},
      {any + "protection = \"x\"\ndirection = \"in\"", {"p:8:14" + says}},
      {kProtection + "mode = \"beet\"",
       {"p:5:8: mode is \"beet\": expected \"transport\", \"tunnel\" or \"any\""}},
  });
}

TEST_CASE("Incoming TCP connections cannot be protected by the client's port") {
  const std::string in = kRule + "direction = \"in\"\n";  // then line 7
  const std::string says =
      "p:7:15: remote_port is a list, the client's, in a rule that protects incoming TCP "
      "connections: expected local_port, the server's, or protocol = \"udp\"";
  Check({
      {in + "remote_port = [5432]", {says}},
      {in + "remote_port = [5432]\nprotocol = \"tcp\"", {says}},
      {in + "remote_port = [5432]\nprotocol = \"udp\"", {}},
      {in + "local_port = [5432]", {}},
      {kRule + "remote_port = [5432]", {}},
      {kHead + "[[rule]]\ndirection = \"in\"\nremote_port = [53]\naction = \"bypass\"", {}},
  });
}

TEST_CASE("Rules: addresses") {
  const auto message = [](const std::string& found, const std::string& hint = "") {
    return "remote holds " + found +
           ": expected an address or a prefix without host bits, like \"10.0.0.0/8\" or "
           "\"fd00::1\"" +
           (hint.empty() ? "" : " (\"" + hint + "\"?)");
  };
  Check({
      {kRule + "remote = \"10.0.0.1\"",
       {"p:6:10: remote is \"10.0.0.1\": expected a list, [\"10.0.0.1\"]"}},
      {kRule + "remote = []", {"p:6:10: remote has 0 elements: expected 1 to 64"}},
      {kRule + "remote = [\"10.0.0.1/8\"]", {"p:6:11: " + message("\"10.0.0.1/8\"", "10.0.0.0/8")}},
      {kRule + "remote = [\"fd00::1/65\"]", {"p:6:11: " + message("\"fd00::1/65\"", "fd00::/65")}},
      {kRule + "remote = [\"::ffff:10.0.0.0/104\"]",
       {"p:6:11: " + message("\"::ffff:10.0.0.0/104\"")}},
      {kRule + "remote = [\"10.0.0.0/8\", \"db\", 10]",
       {"p:6:25: " + message("\"db\""), "p:6:31: " + message("10")}},
  });
}

TEST_CASE("Rules: ports") {
  const std::string wanted = ": expected a port from 1 to 65535 or a range like \"6000-6010\"";
  Check({
      {kRule + "local_port = 80", {"p:6:14: local_port is 80: expected a list, [80]"}},
      {kRule + "local_port = [0]", {"p:6:15: local_port holds 0" + wanted}},
      {kRule + "local_port = [65536]", {"p:6:15: local_port holds 65536" + wanted}},
      {kRule + "local_port = [80, \"9-8\"]", {"p:6:19: local_port holds \"9-8\"" + wanted}},
      {kRule + "local_port = [\"0-8\"]", {"p:6:15: local_port holds \"0-8\"" + wanted}},
      {kRule + "local_port = [\"1-65536\"]", {"p:6:15: local_port holds \"1-65536\"" + wanted}},
      {kRule + "local_port = [\"80\"]", {"p:6:15: local_port holds \"80\"" + wanted}},
      {kRule + "local_port = [\"1-2-3\"]", {"p:6:15: local_port holds \"1-2-3\"" + wanted}},
      {kRule + "local_port = [\" 1-2\"]", {"p:6:15: local_port holds \" 1-2\"" + wanted}},
      {kRule + "local_port = [1.5]", {"p:6:15: local_port holds 1.5" + wanted}},
  });
}

TEST_CASE("Rules: numbers and durations") {
  const std::string wanted =
      ": expected a duration of at most 10m, like \"500ms\", \"5s\" or \"1m\"";
  std::vector<Row> rows = {
      {kRule + "reqid = 0", {"p:6:9: reqid is 0: expected an integer from 1 to 4294967295"}},
      {kRule + "reqid = 4294967296",
       {"p:6:9: reqid is 4294967296: expected an integer from 1 to 4294967295"}},
      {kRule + "acquire_timeout = 5", {"p:6:19: acquire_timeout is 5: expected a string"}},
  };
  for (const char* text : {"", "5", "s", "0s", "-1s", "1h", "5 s", "5ss", "11m", "601s", "600001ms",
                           "99999999999999999999s", "1.5s", "+1s"}) {
    rows.push_back({kRule + "acquire_timeout = \"" + text + "\"",
                    {"p:6:19: acquire_timeout is \"" + std::string(text) + "\"" + wanted}});
  }
  Check(rows);
}

TEST_CASE("Rules: names of tables that do not exist") {
  Check({
      {kRule + "peer = \"q\"",
       {"p:6:8: peer is \"q\": expected the name of a [peer.NAME] table: none is defined"}},
      {kRule + "peer = \"q\"\n[peer.b]\nid = [\"b\"]\n[peer.a]\nid = [\"a\"]",
       {"p:6:8: peer is \"q\": expected the name of a [peer.NAME] table: \"a\", \"b\""}},
      {kRule + "protection = \"x\"",
       {"p:6:14: protection is \"x\": expected the name of a [protection.NAME] table: none is "
        "defined"}},
  });
}

TEST_CASE("Rules: what goes only with protect") {
  const std::string says =
      " says how to protect, but the action is \"bypass\": expected it only "
      "with \"protect\"";
  const std::string rule = "[[rule]]\naction = \"bypass\"\n";
  Check({
      {kPeer + rule + "peer = \"p\"", {"p:8:8: peer" + says}},
      {kProtection + rule + "protection = \"x\"", {"p:7:14: protection" + says}},
      {kHead + rule + "reqid = 7", {"p:6:9: reqid" + says}},
      {kHead + rule + "on_break = \"reset\"", {"p:6:12: on_break" + says}},
      {kHead + rule + "child = \"db\"", {"p:6:9: child" + says}},
      {kHead + rule + "acquire_timeout = \"5s\"", {"p:6:19: acquire_timeout" + says}},
      {kHead + "[[rule]]\naction = \"discard\"\nreqid = 7",
       {"p:6:9: reqid says how to protect, but the action is \"discard\": expected it only with "
        "\"protect\""}},
  });
}

}  // namespace
}  // namespace latchkey::policy
