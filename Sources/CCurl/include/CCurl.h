// What Swift's importer cannot see of libcurl: variadic functions and macros. No logic here.
#ifndef AMORCE_CCURL_H
#define AMORCE_CCURL_H

#include <curl/curl.h>

// curl_easy_setopt is variadic, and Swift does not import variadic C functions: one function per type of argument.
static inline CURLcode amorce_curl_set_long(CURL *handle, CURLoption option, long value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode amorce_curl_set_offset(CURL *handle, CURLoption option, curl_off_t value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode amorce_curl_set_string(CURL *handle, CURLoption option, const char *value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode amorce_curl_set_pointer(CURL *handle, CURLoption option, void *value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode amorce_curl_set_list(CURL *handle, CURLoption option, struct curl_slist *value) {
    return curl_easy_setopt(handle, option, value);
}

typedef size_t (*amorce_curl_data_callback)(char *data, size_t size, size_t count, void *context);
static inline CURLcode amorce_curl_set_data_callback(CURL *handle, CURLoption option, amorce_curl_data_callback value) {
    return curl_easy_setopt(handle, option, value);
}

typedef int (*amorce_curl_seek_callback)(void *context, curl_off_t offset, int origin);
static inline CURLcode amorce_curl_set_seek_callback(CURL *handle, CURLoption option, amorce_curl_seek_callback value) {
    return curl_easy_setopt(handle, option, value);
}

static inline CURLcode amorce_curl_get_long(CURL *handle, CURLINFO info, long *value) {
    return curl_easy_getinfo(handle, info, value);
}
static inline CURLcode amorce_curl_get_offset(CURL *handle, CURLINFO info, curl_off_t *value) {
    return curl_easy_getinfo(handle, info, value);
}

static inline CURLMcode amorce_curl_multi_set_long(CURLM *handle, CURLMoption option, long value) {
    return curl_multi_setopt(handle, option, value);
}

// CURLVERSION_NOW is a macro for an enumerator.
static inline const curl_version_info_data *amorce_curl_version_info(void) { return curl_version_info(CURLVERSION_NOW); }

// CURLMsg.data is a union; Swift cannot name the member that CURLMSG_DONE fills.
static inline CURLcode amorce_curl_message_result(const CURLMsg *message) { return message->data.result; }

#endif
