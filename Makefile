# What one types while changing something. The steps are .ci/run's, and each is a target, too:
# "make databases" is "bash .ci/run databases".

.DEFAULT_GOAL := help
.PHONY: help test docs bench proofs

# What one runs anyway; "make proofs" runs all but these.
quick := format dependencies tests race build lint
steps := $(shell bash .ci/run -h | awk '/^  / { print $$1 }')

help: ## what there is to type
	@awk -F ': .*## ' '/^[a-z]+:.* ## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile
	@bash .ci/run -h | sed '1,2d; s/^  \([a-z]*\) */  \1\t/' | awk -F '\t' '{ printf "%s%-16s %s\n", "  make ", substr($$1, 3), $$2 }'

test: tests ## the same as tests

docs: ## the pages: links, twins, code
	go test ./docs

bench: ## the benchmarks of the package, beside their floors
	go test -run '^$$' -bench . -benchtime 1x .

proofs: ## every step that takes a database, a browser or minutes
	bash .ci/run $(filter-out $(quick),$(steps))

.PHONY: $(steps)
$(steps):
	@bash .ci/run $@
