// Debian's libcurl.a is built with Kerberos, LDAP and RTMP, whose libraries exist only as shared ones. A fully static binary
// must still resolve their names. amorce enables http and https alone and never asks for Negotiate authentication, so nothing
// below is ever called; if it were, stopping at once is the only honest answer.
#include <stdlib.h>

#define UNAVAILABLE(name) \
    __attribute__((noreturn)) void name(void) { abort(); }

UNAVAILABLE(RTMP_Alloc)
UNAVAILABLE(RTMP_Close)
UNAVAILABLE(RTMP_Connect1)
UNAVAILABLE(RTMP_ConnectStream)
UNAVAILABLE(RTMP_Free)
UNAVAILABLE(RTMP_Init)
UNAVAILABLE(RTMP_Read)
UNAVAILABLE(RTMP_SetBufferMS)
UNAVAILABLE(RTMP_SetupURL)
UNAVAILABLE(RTMP_Write)
UNAVAILABLE(ber_bvfree)
UNAVAILABLE(ber_free)
UNAVAILABLE(ber_memfree)
UNAVAILABLE(ber_memvfree)
UNAVAILABLE(ber_sockbuf_add_io)
UNAVAILABLE(gss_delete_sec_context)
UNAVAILABLE(gss_display_name)
UNAVAILABLE(gss_display_status)
UNAVAILABLE(gss_import_name)
UNAVAILABLE(gss_init_sec_context)
UNAVAILABLE(gss_inquire_context)
UNAVAILABLE(gss_release_buffer)
UNAVAILABLE(gss_release_name)
UNAVAILABLE(gss_unwrap)
UNAVAILABLE(gss_wrap)
UNAVAILABLE(ldap_abandon_ext)
UNAVAILABLE(ldap_err2string)
UNAVAILABLE(ldap_free_urldesc)
UNAVAILABLE(ldap_get_attribute_ber)
UNAVAILABLE(ldap_get_dn_ber)
UNAVAILABLE(ldap_get_option)
UNAVAILABLE(ldap_init_fd)
UNAVAILABLE(ldap_memfree)
UNAVAILABLE(ldap_msgfree)
UNAVAILABLE(ldap_msgtype)
UNAVAILABLE(ldap_parse_result)
UNAVAILABLE(ldap_parse_sasl_bind_result)
UNAVAILABLE(ldap_pvt_url_scheme2proto)
UNAVAILABLE(ldap_result)
UNAVAILABLE(ldap_sasl_bind)
UNAVAILABLE(ldap_search_ext)
UNAVAILABLE(ldap_set_option)
UNAVAILABLE(ldap_start_tls)
UNAVAILABLE(ldap_unbind_ext)
UNAVAILABLE(ldap_url_parse)

// A data symbol, not a function.
const void *const GSS_C_NT_HOSTBASED_SERVICE = 0;
