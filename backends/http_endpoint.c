/* Where a server is, and why it cannot be reached. */
#include "backends/http_private.h"

#include "base/alloc.h"
#include "base/cleanup.h"

void http_set_endpoint(CURL *easy, const struct http_params *params, const char *path)
{
	cleanup_free char *url = xasprintf("%s%s", params->url ? params->url : "http://localhost", path);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	if (params->socket_path)
		curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, params->socket_path);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* never by http_proxy */
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L); /* streams that say nothing for days notice a machine that is gone */
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)HTTP_CONNECT_TIMEOUT_MS);
	if (params->ca)
		curl_easy_setopt(easy, CURLOPT_CAINFO, params->ca);
	if (params->cert)
		curl_easy_setopt(easy, CURLOPT_SSLCERT, params->cert);
	if (params->key)
		curl_easy_setopt(easy, CURLOPT_SSLKEY, params->key);
}

int http_explain(const struct http_params *params, CURL *easy, CURLcode code, const char *reason, struct error *err)
{
	long system = 0;
	const char *where = params->socket_path ? params->socket_path : params->url;
	curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &system);
	if (code == CURLE_COULDNT_CONNECT && system)
		return error_set_errno(err, ERROR_BACKEND_UNREACHABLE, (int)system, "%s at %s", params->name, where);
	if (code == CURLE_OPERATION_TIMEDOUT)
		return error_set_errno(err, ERROR_BACKEND_UNREACHABLE, ETIMEDOUT, "%s at %s does not answer", params->name, where);
	return error_set(err, ERROR_BACKEND_UNREACHABLE, "%s at %s: %s", params->name, where, *reason ? reason : curl_easy_strerror(code));
}
