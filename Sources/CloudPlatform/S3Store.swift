public import HostSystem

/// A bucket of S3, or of a server that speaks its protocol. How objects are put into it is told in `S3Upload.swift`.
///
/// Every request is signed (SigV4) unless the store is anonymous or there are no credentials. A wrong region, a wrong
/// clock and expired credentials are each corrected once; "slow down" and broken connections are retried; everything
/// else is told at once as a `StoreError` with S3's code and request id.
public struct S3Store: ObjectStore {
    /// More keys than this below one prefix are taken for a listing without an end.
    static let mostKeys = 1_000_000

    public let location: String
    let session: S3Session
    let exchange: Exchange
    private let options: StoreOptions

    /// Throws `StoreError.noRegion` or `badSetting` where the options give no complete address.
    public init(
        bucket: String, options: StoreOptions, credentials: any CredentialProvider, transport: any HTTPTransport,
        log: Log,
        clock: @escaping @Sendable () -> Int64 = { Host.now }
    ) throws(StoreError) {
        let endpoint = options.s3Endpoint
        // An anonymous request to a server of one's own signs nothing, so that its region is never used.
        guard let region = options.s3Region ?? (options.isAnonymous && endpoint != nil ? "us-east-1" : nil) else {
            throw .noRegion(bucket: bucket)
        }
        _ = try S3Endpoint(bucket: bucket, region: region, custom: endpoint, environment: options.environment)
        location = "s3://\(bucket)/"
        self.options = options
        session = S3Session(
            bucket: bucket, region: region, custom: endpoint, environment: options.environment, provider: credentials,
            isAnonymous: options.isAnonymous, clock: clock, log: log)
        exchange = Exchange(transport: transport, retry: options.retry, log: log)
    }

    public func list(prefix: String, stop: StopFlag) throws -> [StoredObject] {
        var found: [StoredObject] = []
        var token: String?
        var seen: Set<String> = []
        repeat {
            // The order is the one that signing wants, though it does not matter there.
            var query = token.map { [("continuation-token", $0)] } ?? []
            query += [("encoding-type", "url"), ("list-type", "2"), ("max-keys", "1000"), ("prefix", prefix)]
            let response = try answer(location, stop: stop) { [query] in
                try session.attempt(.list, query: query, stop: stop)
            }
            let page: S3Listing
            do throws(S3Listing.Invalid) {
                page = try S3Listing(response.body, prefix: prefix)
            } catch {
                throw StoreError.unexpectedAnswer(object: location, reason: error.description)
            }
            found += page.objects
            token = page.next
            if let token, !seen.insert(token).inserted || found.count > Self.mostKeys {
                throw StoreError.endlessListing(location: location + Printable.text(prefix))
            }
        } while token != nil
        return found
    }

    public func stat(key: String, stop: StopFlag) throws -> StoredObject? {
        try look(key: key, stop: stop).map { try described(key, $0) }
    }

    /// An answer with the headers of the object's present state, or nil where there is none.
    func look(key: String, stop: StopFlag) throws -> HTTPResponse? {
        let object = session.object(key)
        let head = try answer(object, stop: stop) {
            let attempt = try session.attempt(.read(key: key, version: nil), method: "HEAD", stop: stop)
            return RangeSource.Attempt(request: attempt.request) { response in
                // A HEAD has no document that would tell why; a GET of one byte has, so that it decides what to do.
                RetryPolicy.isLater(status: response.status) || response.status == 200
                    ? attempt.judge(response) : .accept
            }
        }
        if head.status == 200 { return head }
        do {
            return try answer(object, stop: stop) {
                try session.attempt(
                    .read(key: key, version: nil), headers: [("Range", RangeSource.header(0..<1))], bodyLimit: 64 << 10,
                    stop: stop)
            }
        } catch StoreError.absent {
            return nil
        }
    }

    func described(_ key: String, _ response: HTTPResponse) throws -> StoredObject {
        let total = response.header("Content-Range").flatMap { $0.split(separator: "/").last }.flatMap { Int64($0) }
        guard let etag = response.header("ETag"),
            let size = total ?? response.header("Content-Length").flatMap({ Int64($0) })
        else {
            throw StoreError.unexpectedAnswer(
                object: session.object(key), reason: "an object without ETag or length, as a captive portal's page is")
        }
        return StoredObject(
            key: key, size: size, modified: response.header("Last-Modified").flatMap { ServerTime.http($0) },
            etag: etag,
            version: response.header("x-amz-version-id"))
    }

    public func read(key: String, limit: Int, stop: StopFlag) throws -> [UInt8]? {
        let object = session.object(key)
        do {
            let response = try answer(object, limit: limit, stop: stop) {
                try session.attempt(
                    .read(key: key, version: nil), bodyLimit: max(limit, 64 << 10), stop: stop,
                    accept: { response in
                        response.header("ETag") == nil
                            ? .fail(StoreError.unexpectedAnswer(object: object, reason: "an object without ETag"))
                            : .accept
                    })
            }
            guard response.body.count <= limit else { throw StoreError.tooLarge(object: object, limit: limit) }
            return response.body
        } catch StoreError.absent {
            return nil
        }
    }

    public func open(
        _ object: StoredObject, from offset: Int64, memory: ByteCount, stop: StopFlag,
        progress: @escaping ProgressHandler
    ) throws -> any ByteSource {
        let shown = session.object(object.key)
        let session = session
        let query = object.version.map { [("versionId", $0)] } ?? []
        let source = RangeSource(name: shown, isPinned: object.etag != nil || object.version != nil) { range in
            var headers: [(name: String, value: String)] = []
            if let range { headers.append(("Range", RangeSource.header(range))) }
            if let etag = object.etag { headers.append(("If-Match", etag)) }
            let attempt = try session.attempt(
                .read(key: object.key, version: object.version), query: query, headers: headers, stop: stop,
                accept: { Self.judge($0, pinned: object, shown: shown) })
            return RangeSource.Attempt(request: attempt.request) { response in
                let verdict = attempt.judge(response)
                // It was there when it was chosen.
                if case .fail(StoreError.absent) = verdict { return .fail(StoreError.removed(object: shown)) }
                return verdict
            }
        } wrap: {
            StoreError.unreachable(object: shown, $0)
        }
        return try RangedDownload(
            source, size: object.size, from: offset, connections: options.connections, memory: memory,
            retry: options.retry, environment: options.environment, stop: stop, progress: progress)
    }

    /// Whether a good answer is the pinned object: a server may ignore If-Match, as rclone's does.
    private static func judge(_ response: HTTPResponse, pinned object: StoredObject, shown: String)
        -> RangeSource.Verdict
    {
        guard response.status == 200 || response.status == 206 else {
            return .fail(StoreError.unexpectedAnswer(object: shown, reason: "status \(response.status)"))
        }
        guard let etag = response.header("ETag") else {
            return .fail(StoreError.unexpectedAnswer(object: shown, reason: "an object without ETag"))
        }
        if let pinned = object.etag, !ETag.areSame(pinned, etag) { return .fail(StoreError.replaced(object: shown)) }
        if let version = object.version, let got = response.header("x-amz-version-id"), got != version {
            return .fail(StoreError.replaced(object: shown))
        }
        return .accept
    }

    /// `doubt` notes whether the store may have done what it was asked, whatever the end of it is.
    func answer(
        _ object: String, limit: Int = 8 << 20, stop: StopFlag, doubt: Doubt? = nil,
        attempt: () throws -> RangeSource.Attempt
    ) throws -> HTTPResponse {
        try exchange.answer(object, stop: stop) { failure in
            if failure.mayHaveArrived { doubt?.note() }
            if case .tooLarge = failure.kind { return StoreError.tooLarge(object: object, limit: limit) }
            return StoreError.unreachable(object: object, failure)
        } attempt: {
            let attempt = try attempt()
            return doubt?.watching(attempt) ?? attempt
        }
    }
}

/// Entity tags (RFC 9110, section 8.8.3). Stores give them with and without quotes.
enum ETag {
    static func areSame(_ left: String, _ right: String) -> Bool { bare(left) == bare(right) }
    /// A weak tag does not promise the same bytes, so it pins nothing.
    static func isStrong(_ tag: String) -> Bool { !tag.hasPrefix("W/") && !bare(tag).isEmpty }
    private static func bare(_ tag: String) -> String { tag.filter { $0 != "\"" } }
}
