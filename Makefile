# The commands. Each first installs what it needs where it may, or says what to install (.ci/setup).

.PHONY: run test fuzz

# Where rustup puts cargo, in case the shell was not started anew since.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Build the gateway and start it with three sample backends to play with.
run:
	@.ci/setup build
	cargo run --profile scenario --package goodgate -- demo

# Everything that CI runs.
test:
	@.ci/setup build test
	@.ci/test

# Feeds the parsers with bytes that nobody thought of, each for so many seconds. Needs a nightly compiler.
fuzz:
	@.ci/fuzz $(or $(SECONDS_EACH),60)
