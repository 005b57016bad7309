public import HostSystem

/// AWS Signature Version 4, in the Authorization header. A pure value: the same request, key and time give the same
/// signature. Source: "Create a signed AWS API request" in the IAM User Guide, and "Authenticating Requests (AWS
/// Signature Version 4)" in the Amazon S3 API Reference for what S3 does otherwise.
public struct SigV4: Sendable, Equatable {
    public enum Dialect: Sendable, Equatable {
        /// S3: the path is signed as it is sent, and `x-amz-content-sha256` is mandatory.
        case s3
        /// Every other service: dot segments are removed from the path, and each segment is encoded once more.
        case generic
    }

    public let service: String
    public let region: String
    public let dialect: Dialect

    public init(service: String, region: String, dialect: Dialect = .generic) {
        self.service = service
        self.region = region
        self.dialect = dialect
    }

    /// The SHA-256 of no bytes, in hexadecimal.
    public static let emptyPayload = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    /// The request with `X-Amz-Date`, the session token where there is one, and `Authorization`. Every header that the
    /// request already has is signed, but for those that proxies change. `payload` is the hexadecimal SHA-256 of the
    /// body, computed from it when nil. `now` is in seconds since 1970. A URL that is none comes back unsigned, and
    /// cannot be sent either.
    public func sign(
        _ request: HTTPRequest, with credentials: Credentials, at now: Int64, payload: String? = nil
    ) -> HTTPRequest {
        var signed = request
        let hash = payload ?? Self.hash(request.body)
        signed.headers.removeAll { Self.own.contains($0.name.lowercased()) }
        signed.headers.append(("X-Amz-Date", UTCStamp(secondsSince1970: now).basic))
        if dialect == .s3 { signed.headers.append(("X-Amz-Content-Sha256", hash)) }
        if let token = credentials.sessionToken?.revealedText {
            signed.headers.append(("X-Amz-Security-Token", token))
        }
        guard let canonical = canonicalRequest(signed, payload: hash) else { return request }
        let scope = self.scope(now)
        let signature = Digest.hmacSHA256(
            key: signingKey(credentials.secretKey, now), Array(stringToSign(canonical.text, at: now).utf8)
        ).hex
        signed.headers.append(
            (
                "Authorization",
                "AWS4-HMAC-SHA256 Credential=\(credentials.accessKey)/\(scope), "
                    + "SignedHeaders=\(canonical.signedHeaders), Signature=\(signature)"
            ))
        return signed
    }

    private static let own: Set = ["x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "authorization"]
    /// Changed or added on the way, so never signed.
    private static let unsigned: Set = [
        "authorization", "user-agent", "connection", "expect", "transfer-encoding", "x-amzn-trace-id",
    ]

    private static func hash(_ body: [UInt8]?) -> String {
        guard let body, !body.isEmpty else { return emptyPayload }
        return Digest.sha256(body).hex
    }

    // MARK: the steps of the specification

    /// Nil where the URL is no http URL.
    func canonicalRequest(_ request: HTTPRequest, payload: String) -> (text: String, signedHeaders: String)? {
        guard let address = WebAddress(request.url) else { return nil }
        var values: [String: [String]] = [:]
        for (name, value) in request.headers {
            let key = name.lowercased()
            if !Self.unsigned.contains(key) { values[key, default: []].append(Self.collapsed(value)) }
        }
        if values["host"] == nil { values["host"] = [address.authority] }
        let names = values.keys.sorted { Array($0.utf8).lexicographicallyPrecedes(Array($1.utf8)) }
        let headers = names.map { "\($0):\((values[$0] ?? []).joined(separator: ","))\n" }.joined()
        let signedHeaders = names.joined(separator: ";")
        let text = [
            request.method, canonicalPath(address.path), Self.canonicalQuery(address.query ?? ""), headers,
            signedHeaders,
            payload,
        ].joined(separator: "\n")
        return (text, signedHeaders)
    }

    func stringToSign(_ canonicalRequest: String, at now: Int64) -> String {
        [
            "AWS4-HMAC-SHA256", UTCStamp(secondsSince1970: now).basic, scope(now),
            Digest.sha256(Array(canonicalRequest.utf8)).hex,
        ].joined(separator: "\n")
    }

    private func scope(_ now: Int64) -> String {
        "\(UTCStamp(secondsSince1970: now).dateDigits)/\(region)/\(service)/aws4_request"
    }

    private func signingKey(_ secret: Secret, _ now: Int64) -> [UInt8] {
        var key = Array("AWS4".utf8) + secret.revealedBytes
        for part in [UTCStamp(secondsSince1970: now).dateDigits, region, service, "aws4_request"] {
            key = Digest.hmacSHA256(key: key, Array(part.utf8))
        }
        return key
    }

    private func canonicalPath(_ path: String) -> String {
        if dialect == .s3 { return path }
        var segments: [Substring] = []
        for segment in path.split(separator: "/") where segment != "." {
            if segment == ".." { _ = segments.popLast() } else { segments.append(segment) }
        }
        let isFolder = path.hasSuffix("/") || path.hasSuffix("/.") || path.hasSuffix("/..")
        let joined = "/" + segments.joined(separator: "/") + (isFolder && !segments.isEmpty ? "/" : "")
        return WebAddress.encoded(joined, keepingSlash: true)
    }

    /// Each name and value decoded, encoded in the one form that is signed, and sorted by the encoded bytes.
    private static func canonicalQuery(_ query: String) -> String {
        let pairs = query.split(separator: "&").map { pair -> (String, String) in
            let halves = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            return (recoded(halves[0]), halves.count > 1 ? recoded(halves[1]) : "")
        }
        return pairs.sorted { left, right in
            left.0 == right.0
                ? Array(left.1.utf8).lexicographicallyPrecedes(Array(right.1.utf8))
                : Array(left.0.utf8).lexicographicallyPrecedes(Array(right.0.utf8))
        }.map { $0.0 + "=" + $0.1 }.joined(separator: "&")
    }

    private static func recoded(_ text: Substring) -> String {
        // Bytes that are no UTF-8 stay in the encoding that they came in.
        WebAddress.decoded(text).map { WebAddress.encoded($0) } ?? String(text)
    }

    /// Without blanks at the ends, and with runs of blanks as one.
    private static func collapsed(_ value: String) -> String {
        value.split { $0 == " " || $0 == "\t" }.joined(separator: " ")
    }
}
