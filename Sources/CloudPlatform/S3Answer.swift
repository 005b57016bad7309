internal import HostSystem

/// What an S3 error document and the headers around it say. A HEAD has no document: its code is then empty.
struct S3Problem: Sendable, Equatable {
    let status: Int
    let code: String
    let message: String
    let requestID: String?
    /// Where the bucket lies, if the answer tells.
    let region: String?
    /// The server's clock.
    let date: Int64?
    let retryAfter: Duration?

    init(_ response: HTTPResponse) {
        status = response.status
        let document = Self.document(response.body).flatMap { $0.name == "Error" ? $0 : nil }
        code = Printable.text(document?.text(of: "Code") ?? "", limit: 60)
        message = Printable.text(document?.text(of: "Message") ?? "", limit: 200)
        requestID = (response.header("x-amz-request-id") ?? document?.text(of: "RequestId"))
            .map { Printable.text($0, limit: 80) }
        let told = response.header("x-amz-bucket-region") ?? document?.text(of: "Region")
        region = told.flatMap { S3Endpoint.isRegion($0) ? $0 : nil }
        date = response.header("Date").flatMap { ServerTime.http($0) }
        retryAfter = RetryPolicy.hint(response)
    }

    /// The root of a small document; nil where there is none. S3 keeps long requests alive with blanks before it, which
    /// XML itself forbids before its declaration ("CompleteMultipartUpload" in the Amazon S3 API Reference).
    static func document(_ body: [UInt8]) -> XMLElement? {
        let isBlank: (UInt8) -> Bool = { $0 == 0x20 || $0 == 0x0a || $0 == 0x0d || $0 == 0x09 }
        let text = body.first.map(isBlank) == true ? Array(body.drop(while: isBlank)) : body
        return try? XMLReader.parse(text, limit: 64 << 10, depth: 8, elements: 100)
    }

    /// The code with the request and S3's own words.
    var told: String {
        shownCode + (requestID.map { ", request \($0)" } ?? "") + (message.isEmpty ? "" : ": \(message)")
    }

    /// The bytes did not arrive as they were sent: sending them again can help.
    var isDamage: Bool { ["BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"].contains(code) }

    /// For messages: the code, or the status where there is none.
    var shownCode: String { code.isEmpty ? "status \(status)" : code }

    var isRegion: Bool {
        if [301, 302, 307, 308].contains(status) { return true }
        if ["PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException"].contains(code) {
            return true
        }
        // The two answers to a signature for another region; an AuthorizationHeaderMalformed without a region is
        // another mistake.
        return (code == "AuthorizationHeaderMalformed" || (code.isEmpty && status == 400)) && region != nil
    }

    var isCredentials: Bool {
        [
            "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "InvalidAccessKeyId",
            "InvalidClientTokenId",
        ].contains(code)
    }

    var isLater: Bool {
        RetryPolicy.isLater(status: status)
            || [
                "SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "RequestTimeoutException",
                "Throttling",
                "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded", "RequestThrottled",
            ].contains(code)
    }
}

/// One page of ListObjectsV2.
struct S3Listing: Sendable, Equatable {
    var objects: [StoredObject] = []
    /// Nil on the last page.
    var next: String?

    struct Invalid: Error, Equatable, CustomStringConvertible {
        let description: String
    }

    /// Refuses whatever is no listing, a page that says it goes on but not how, and a key without the prefix that was
    /// asked for.
    init(_ body: [UInt8], prefix: String) throws(Invalid) {
        let root: XMLElement
        do throws(XMLReader.Problem) {
            root = try XMLReader.parse(body)
        } catch {
            throw Invalid(description: error.description)
        }
        guard root.name == "ListBucketResult" else {
            throw Invalid(description: "a document <\(Printable.text(root.name, limit: 40))>")
        }
        let isEncoded = root.text(of: "EncodingType") == "url"
        for entry in root.children("Contents") {
            guard let raw = entry.text(of: "Key"),
                let key = isEncoded ? WebAddress.decoded(raw, plusIsSpace: true) : raw
            else { throw Invalid(description: "an entry without a key") }
            guard key.utf8.starts(with: prefix.utf8) else {
                throw Invalid(description: "a key outside the prefix: \(Printable.text(key, limit: 100))")
            }
            objects.append(
                StoredObject(
                    key: key, size: entry.text(of: "Size").flatMap { Int64($0) },
                    modified: entry.text(of: "LastModified").flatMap { ServerTime.iso($0) },
                    etag: entry.text(of: "ETag")))
        }
        if root.text(of: "IsTruncated") == "true" {
            guard let token = root.text(of: "NextContinuationToken"), !token.isEmpty else {
                throw Invalid(description: "it goes on, but does not tell how")
            }
            next = token
        }
    }
}
