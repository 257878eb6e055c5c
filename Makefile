# Names for what the scripts beside this file do; each script also runs by itself.
.PHONY: demo test storm deb ci

demo: ; ./demo
test: ; ./test
storm: ; ./tools/storm --minutes 8
deb: ; ./packaging/build
ci: ; .ci/run
