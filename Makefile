# Names for what the scripts beside this file do; each script also runs by itself.
.PHONY: demo test storm ci

demo: ; ./demo
test: ; ./test
storm: ; ./tools/storm --minutes 8
ci: ; .ci/run
