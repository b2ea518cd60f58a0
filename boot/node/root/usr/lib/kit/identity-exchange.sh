# How the machine gets its certificate (docs/ports-and-endpoints.md, "How a machine proves who it is"). A part of identity.sh.
# shellcheck shell=dash

# prove_identity [SECONDS]: asks the server for a certificate for key.pem, and waits for a person, at most so long when
# SECONDS are given. 0: certificate.pem, mac and tier are there. 1: refused; begin anew after 30 seconds. 2: no answer.
prove_identity() {
  complain 'Cannot prove who this machine is: not written yet'
}
