# Names for what the scripts beside this file do; each script also runs by itself.
.PHONY: demo test storm bench

demo: ; ./demo
test: ; ./test
