# Names for what the scripts beside this file do; each script also runs by itself.
.PHONY: demo test storm lab deb ci

demo: ; ./demo
test: ; ./test
storm: ; ./tools/storm --minutes 8
lab: ; ./tools/lab
deb: ; ./packaging/build
ci: ; .ci/run
