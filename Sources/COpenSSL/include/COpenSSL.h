// The digests and the TLS set-up of the OpenSSL that libcurl brings along. The functions below hide macros from Swift.
#ifndef AMORCE_COPENSSL_H
#define AMORCE_COPENSSL_H

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

// OPENSSL_INIT_NO_LOAD_CONFIG is a cast macro. A static OpenSSL that meets a distribution's openssl.cnf naming provider
// modules it does not have fails every SSL_CTX_new; amorce starts it without any configuration.
static inline int amorce_openssl_init(void) {
    return OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS, NULL);
}

#endif
