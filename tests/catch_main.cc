// The one main() of every unit test: compiling Catch2's runner is slow, so it is done once.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
