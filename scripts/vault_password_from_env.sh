#!/bin/sh
# For ANSIBLE_VAULT_PASSWORD_FILE in CI: the password comes from VAULT_PASSWORD, never from a file or a command line.
printf '%s\n' "${VAULT_PASSWORD:?the password of the vault; set it as a secret of the environment}"
