public import HostSystem
internal import Synchronization

/// Objects are put under free names alone (`If-None-Match: *`), each body with a SHA-256 that S3 verifies; Object Lock
/// demands such a checksum. A role that may put, and nothing else, is enough while no answer gets lost.
///
/// Sources: CreateMultipartUpload, UploadPart, UploadPartCopy, CompleteMultipartUpload and PutObject in the Amazon S3 API
/// Reference; "How to prevent object overwrites with conditional writes" in the Amazon S3 User Guide.
extension S3Store: WritableStore {
    /// "Amazon S3 multipart upload limits" in the Amazon S3 User Guide.
    public var partRules: PartRules { PartRules(smallest: 5 << 20, largest: 5 << 30, most: 10_000) }

    public func beginUpload(key: String, stop: StopFlag) throws -> any ObjectUpload {
        let object = session.object(key)
        // One request now against gigabytes in vain. A role that may not look goes on, and `complete` decides.
        if try head(key, stop) != nil { throw StoreConflict(object: object) }
        let token = Host.randomHex(bytes: 16)
        let response = try answer(object, stop: stop) {
            try session.attempt(
                .put(key: key), method: "POST", query: [("uploads", "")],
                headers: [("x-amz-checksum-algorithm", "SHA256"), (S3Upload.tokenHeader, token)],
                load: S3Session.Load(bytes: []), stop: stop)
        }
        // S3 names the document InitiateMultipartUploadResult; rclone's server has another name for it.
        guard let identifier = S3Problem.document(response.body)?.text(of: "UploadId"), !identifier.isEmpty else {
            throw StoreError.unexpectedAnswer(object: object, reason: "an upload without a name")
        }
        return S3Upload(self, key: key, identifier: identifier, token: token, stop: stop)
    }

    public func put(key: String, bytes: [UInt8], stop: StopFlag) throws {
        let object = session.object(key)
        guard Int64(bytes.count) <= partRules.largest else {
            throw UploadError.outsideRules(object: object, part: 1, length: Int64(bytes.count))
        }
        let load = S3Session.Load(sending: bytes, isOnce: true)
        let doubt = Doubt()
        do {
            try underFreeName(key, stop) { conditions in
                _ = try answer(object, stop: stop, doubt: doubt) {
                    try session.attempt(
                        .put(key: key), method: "PUT", headers: [load.checksumHeader] + conditions, load: load,
                        stop: stop,
                        accept: { $0.header("ETag") == nil ? Self.noETag(object) : .accept },
                        complaint: {
                            // Another write of that name was under way.
                            if $0.code == "ConditionalRequestConflict" || $0.isDamage {
                                return .later(
                                    after: $0.retryAfter,
                                    error: StoreError.cannotUpload(object: object, reason: $0.told))
                            }
                            return Self.condition($0, object)
                        })
                }
            } isOurs: { _ in
                try doubt.exists && isThere(key, bytes, stop)
            }
        } catch let error where doubt.exists && !(error is StopReason) {
            if try resolving(error, object, { try isThere(key, bytes, stop) }) { return }
            throw error
        }
    }

    public func remove(key: String, stop: StopFlag) throws {
        _ = try answer(session.object(key), stop: stop) {
            try session.attempt(
                .remove(key: key), method: "DELETE", stop: stop,
                complaint: { $0.status == 404 && $0.code != "NoSuchBucket" ? .accept : nil })
        }
    }

    // MARK: free names

    /// Does a write that fails where the name is taken. Many servers ignore the condition, rclone's among them, so that on
    /// any but Amazon's the name is looked for before as well. One that refuses the condition (501) is asked without it;
    /// `isOurs` then says of what is found whether this very write put it there.
    fileprivate func underFreeName(
        _ key: String, _ stop: StopFlag, _ write: ([(name: String, value: String)]) throws -> Void,
        isOurs: (HTTPResponse) throws -> Bool
    ) throws {
        let object = session.object(key)
        if !session.lacksConditions {
            if session.isCustom, try head(key, stop) != nil { throw StoreConflict(object: object) }
            do {
                return try write([("If-None-Match", "*")])
            } catch is NoConditions {
                exchange.log.detail(
                    "\(location): no conditional writes there; the name is looked for before it is used")
            }
        }
        if let found = try look(key: key, stop: stop) {
            if try isOurs(found) { return }
            throw StoreConflict(object: object)
        }
        do {
            try write([])
        } catch let refusal as NoConditions {
            // It was not about the condition.
            throw StoreError.cannotUpload(object: object, reason: refusal.told)
        }
        session.lacksConditions = true
    }

    /// What an answer says about the condition, if anything.
    fileprivate static func condition(_ problem: S3Problem, _ object: String) -> RangeSource.Verdict? {
        if problem.status == 412 || problem.code == "PreconditionFailed" { return .fail(StoreConflict(object: object)) }
        if problem.status == 501 || problem.code == "NotImplemented" { return .fail(NoConditions(told: problem.told)) }
        return nil
    }

    /// A captive portal's answer, or one that was cut within its head: libcurl takes that for whole.
    fileprivate static func noETag(_ object: String) -> RangeSource.Verdict {
        .later(after: nil, error: StoreError.unexpectedAnswer(object: object, reason: "stored, but without an ETag"))
    }

    /// What a HEAD finds. Nil also where the role may not look.
    fileprivate func head(_ key: String, _ stop: StopFlag) throws -> HTTPResponse? {
        let head = try answer(session.object(key), stop: stop) {
            let attempt = try session.attempt(.read(key: key, version: nil), method: "HEAD", stop: stop)
            return RangeSource.Attempt(request: attempt.request) { response in
                RetryPolicy.isLater(status: response.status) ? attempt.judge(response) : .accept
            }
        }
        return head.status == 200 && head.header("ETag") != nil ? head : nil
    }

    /// Whether the object there is byte for byte this one; false where there is none. Throws `StoreConflict` for another.
    private func isThere(_ key: String, _ bytes: [UInt8], _ stop: StopFlag) throws -> Bool {
        do {
            guard let found = try read(key: key, limit: bytes.count, stop: stop) else { return false }
            if found == bytes { return true }
        } catch StoreError.tooLarge {
        }
        throw StoreConflict(object: session.object(key))
    }

    /// After a write that may have been done: what `look` finds, or an error that says that nobody knows.
    fileprivate func resolving<Result>(_ error: any Error, _ object: String, _ look: () throws -> Result) throws
        -> Result
    {
        exchange.log.detail("\(error); looking whether it was stored")
        do {
            return try look()
        } catch let second where !(second is StopReason) && !(second is StoreConflict) {
            throw StoreError.outcomeUnknown(object: object, reason: "\(error); \(second)")
        }
    }
}

/// A server that answers 501 to a condition on a write.
private struct NoConditions: Error {
    let told: String
}

/// Whether the store may have done what it was asked though it did not say so: the answer got lost, or was an error of its
/// own. Safe from any thread.
final class Doubt: Sendable {
    private let state = Mutex(false)

    var exists: Bool { state.withLock { $0 } }

    func note() { state.withLock { $0 = true } }

    /// The same attempt, with an eye on its verdict.
    func watching(_ attempt: RangeSource.Attempt) -> RangeSource.Attempt {
        RangeSource.Attempt(request: attempt.request) { response in
            let verdict = attempt.judge(response)
            switch verdict {
            case .accept, .again: break
            case .later, .fail:
                // 501 is said of the request as such, before anything is done.
                let isOwn = response.status >= 500 && response.status != 501
                if isOwn || (200..<300).contains(response.status) { self.note() }
            }
            return verdict
        }
    }
}

extension S3Session.Load {
    /// A minute, and what the bytes take at 64 KiB a second; sooner where nothing moves at all.
    fileprivate init(sending bytes: [UInt8], isOnce: Bool = false) {
        self.init(
            bytes: bytes, sha256: Digest.sha256(bytes), timeout: .seconds(60 + bytes.count >> 16), idle: .seconds(60),
            isOnce: isOnce)
    }

    fileprivate var checksumHeader: (name: String, value: String) {
        ("x-amz-checksum-sha256", TransferEncoding.encodedBase64(sha256 ?? []))
    }
}

/// One multipart upload. Safe from any thread.
final class S3Upload: ObjectUpload {
    /// An object that was completed by us carries it, whoever else writes objects of the same size.
    static let tokenHeader = "x-amz-meta-amorce-upload"

    private struct Part {
        let etag: String
        /// In base64. Of a copied part S3 computes it; other servers may not.
        let checksum: String?
        let length: Int64
    }

    private struct State {
        var parts: [Int: Part] = [:]
        var inFlight = 0
        var isCompleting = false
        var isEnded = false
        var isAborted = false
    }

    private let store: S3Store
    private let key: String
    private let identifier: String
    private let token: String
    private let stop: StopFlag
    private let state = Mutex(State())

    private var object: String { store.session.object(key) }

    init(_ store: S3Store, key: String, identifier: String, token: String, stop: StopFlag) {
        self.store = store
        self.key = key
        self.identifier = identifier
        self.token = token
        self.stop = stop
    }

    // MARK: parts

    func send(part: Int, bytes: [UInt8]) throws {
        try put(part, length: Int64(bytes.count)) {
            let load = S3Session.Load(sending: bytes)
            let checksum = load.checksumHeader
            let object = object
            let response = try answer(
                .put(key: key), part, [checksum], load,
                accept: { response in
                    guard response.header("ETag") != nil else { return S3Store.noETag(object) }
                    // It has to be the checksum of what was sent; a server may leave it out.
                    guard let told = response.header(checksum.name), told != checksum.value else { return .accept }
                    return .later(
                        after: nil, error: StoreError.cannotUpload(object: object, reason: "part \(part) was damaged"))
                })
            return Part(etag: response.header("ETag") ?? "", checksum: checksum.value, length: Int64(bytes.count))
        }
    }

    func copy(part: Int, from source: StoredObject, range: Range<Int64>) throws {
        let length = range.upperBound - range.lowerBound
        try put(part, length: length) {
            var from =
                WebAddress.encoded(store.session.bucket) + "/" + WebAddress.encoded(source.key, keepingSlash: true)
            if let version = source.version { from += "?versionId=" + WebAddress.encoded(version) }
            var headers = [(name: "x-amz-copy-source", value: from)]
            if let etag = source.etag { headers.append(("x-amz-copy-source-if-match", etag)) }
            // S3 takes no range of an object below 5 MiB, but the whole of it.
            if range != 0..<(source.size ?? -1) {
                headers.append(("x-amz-copy-source-range", RangeSource.header(range)))
            }
            let object = object
            let shown = store.session.object(source.key)
            let noCopies = CopySourceGone(object: shown, reason: "the store copies no parts of it")
            let response = try answer(
                .copy(key: key, source: source.key, version: source.version), part, headers,
                // S3 copies within itself, and tells nothing until it has done so.
                S3Session.Load(bytes: [], timeout: .seconds(900)),
                accept: { response in
                    if Self.copied(response) != nil { return .accept }
                    // rclone's server does not know of copies, and takes it for a part that is sent and empty.
                    if response.body.isEmpty && response.header("ETag") != nil { return .fail(noCopies) }
                    return .later(
                        after: nil,
                        error: StoreError.unexpectedAnswer(object: object, reason: "a copied part without an ETag"))
                },
                complaint: { problem in
                    switch (problem.status, problem.code) {
                    case (_, "NoSuchBucket"): nil
                    case (501, _), (_, "NotImplemented"): .fail(noCopies)
                    // Not every server says with a code what it does not find.
                    case (404, _), (_, "NoSuchKey"), (_, "NoSuchVersion"), (412, _), (_, "PreconditionFailed"):
                        .fail(CopySourceGone(object: shown))
                    default: nil
                    }
                })
            guard let root = Self.copied(response), let etag = root.text(of: "ETag") else {
                throw StoreError.unexpectedAnswer(object: object, reason: "a copied part without an ETag")
            }
            return Part(etag: etag, checksum: root.text(of: "ChecksumSHA256"), length: length)
        }
    }

    private static func copied(_ response: HTTPResponse) -> XMLElement? {
        guard let root = S3Problem.document(response.body), root.name == "CopyPartResult",
            root.text(of: "ETag").map({ !$0.isEmpty }) == true
        else { return nil }
        return root
    }

    /// A part's number and length are looked at, it is sent, and noted once the store has it.
    private func put(_ part: Int, length: Int64, _ send: () throws -> Part) throws {
        let rules = store.partRules
        guard (1...rules.most).contains(part), (0...rules.largest).contains(length) else {
            throw UploadError.outsideRules(object: object, part: part, length: length)
        }
        try state.withLock { state throws(UploadError) in
            guard !state.isEnded && !state.isCompleting else { throw .closed(object: object) }
            state.inFlight += 1
            state.parts[part] = nil
        }
        defer {
            let isLast = state.withLock { state in
                state.inFlight -= 1
                return state.isAborted && state.inFlight == 0
            }
            // A part that was under way when its upload was given up can be stored all the same ("AbortMultipartUpload"
            // in the Amazon S3 API Reference).
            if isLast { giveUp() }
        }
        let sent = try send()
        state.withLock { $0.parts[part] = sent }
    }

    private func answer(
        _ operation: S3Session.Operation, _ part: Int, _ headers: [(name: String, value: String)],
        _ load: S3Session.Load, accept: @escaping @Sendable (HTTPResponse) -> RangeSource.Verdict,
        complaint: @escaping @Sendable (S3Problem) -> RangeSource.Verdict? = { _ in nil }
    ) throws -> HTTPResponse {
        let object = object
        return try store.answer(object, stop: stop) {
            if state.withLock({ $0.isEnded }) { throw UploadError.closed(object: object) }
            return try store.session.attempt(
                operation, method: "PUT", query: [("partNumber", String(part)), ("uploadId", identifier)],
                headers: headers, load: load, stop: stop, accept: accept,
                complaint: { problem in
                    if problem.code == "NoSuchUpload" {
                        return .fail(StoreError.uploadLost(object: object, reason: problem.told))
                    }
                    if problem.isDamage {
                        return .later(
                            after: nil, error: StoreError.cannotUpload(object: object, reason: problem.told))
                    }
                    return complaint(problem)
                })
        }
    }

    // MARK: the end

    func complete() throws -> StoredObject {
        let parts = try state.withLock { state throws(UploadError) in
            guard !state.isEnded && !state.isCompleting else { throw .closed(object: object) }
            let count = max(1, state.parts.keys.max() ?? 1)
            let parts = (1...count).compactMap { state.parts[$0] }
            if parts.count < count {
                throw .missingPart(object: object, part: (1...count).first { state.parts[$0] == nil } ?? 1)
            }
            state.isCompleting = true
            return parts
        }
        do {
            let completed = try complete(parts)
            state.withLock { $0.isEnded = true }
            return completed
        } catch {
            state.withLock { $0.isCompleting = false }
            throw error
        }
    }

    private func complete(_ parts: [Part]) throws -> StoredObject {
        let object = object
        let size = parts.reduce(0) { $0 + $1.length }
        // S3 puts a large object together before it answers; it sends blanks meanwhile.
        let body = Array(Self.document(parts).utf8)
        let load = S3Session.Load(
            bytes: body, sha256: Digest.sha256(body), timeout: .seconds(600), isOnce: true)
        let doubt = Doubt()
        var completed: StoredObject?
        do {
            try store.underFreeName(key, stop) { conditions in
                let response = try store.answer(object, stop: stop, doubt: doubt) {
                    try store.session.attempt(
                        .put(key: key), method: "POST", query: [("uploadId", identifier)],
                        headers: [("Content-Type", "application/xml")] + conditions, load: load, stop: stop,
                        accept: {
                            Self.completed($0) == nil
                                ? .later(
                                    after: nil,
                                    error: StoreError.unexpectedAnswer(
                                        object: object, reason: "no result of the upload"))
                                : .accept
                        },
                        complaint: { problem in
                            // 409: another writer of the same name was under way, and the parts are void.
                            if problem.code == "NoSuchUpload" || problem.code == "ConditionalRequestConflict" {
                                return .fail(StoreError.uploadLost(object: object, reason: problem.told))
                            }
                            return S3Store.condition(problem, object)
                        })
                }
                completed = StoredObject(
                    key: key, size: size, etag: Self.completed(response),
                    version: response.header("x-amz-version-id"))
            } isOurs: { found in
                guard doubt.exists, isOurs(found, size: size, count: parts.count) else { return false }
                completed = try store.described(key, found)
                return true
            }
        } catch let error where doubt.exists && !(error is StopReason) {
            let found = try store.resolving(error, object) { try store.look(key: key, stop: stop) }
            guard let found else { throw error }
            guard isOurs(found, size: size, count: parts.count) else { throw StoreConflict(object: object) }
            completed = try store.described(key, found)
        }
        guard let completed else {
            throw StoreError.unexpectedAnswer(object: object, reason: "no result of the upload")
        }
        return try seen(completed)
    }

    /// The completed object as a HEAD shows it, where the role may look: rclone's server gives it another ETag than it says
    /// at first, and a server that drops a part must not pass.
    private func seen(_ completed: StoredObject) throws -> StoredObject {
        guard let head = try? store.head(key, stop) else { return completed }
        // Where nothing heeds the conditions, another writer of the name may have been the later one.
        if let told = head.header(Self.tokenHeader), told != token { throw StoreConflict(object: object) }
        guard let seen = try? store.described(key, head) else { return completed }
        guard seen.size == completed.size else {
            throw StoreError.unexpectedAnswer(
                object: object,
                reason: "\(seen.size ?? 0) bytes in place of the \(completed.size ?? 0) that were sent")
        }
        return StoredObject(
            key: key, size: seen.size, modified: seen.modified, etag: seen.etag,
            version: completed.version ?? seen.version)
    }

    /// The new object's ETag.
    private static func completed(_ response: HTTPResponse) -> String? {
        guard let root = S3Problem.document(response.body), root.name == "CompleteMultipartUploadResult" else {
            return nil
        }
        return root.text(of: "ETag")
    }

    /// Whether what stands under the name is what this upload made. A server that drops metadata is judged by the number of
    /// parts at the end of the ETag.
    private func isOurs(_ found: HTTPResponse, size: Int64, count: Int) -> Bool {
        guard let described = try? store.described(key, found), described.size == size else { return false }
        if let told = found.header(Self.tokenHeader) { return told == token }
        return described.etag?.filter { $0 != "\"" }.hasSuffix("-\(count)") ?? false
    }

    private static func document(_ parts: [Part]) -> String {
        var text = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
        for (index, part) in parts.enumerated() {
            text += "<Part>"
            if let checksum = part.checksum { text += "<ChecksumSHA256>\(escaped(checksum))</ChecksumSHA256>" }
            text += "<ETag>\(escaped(part.etag))</ETag><PartNumber>\(index + 1)</PartNumber></Part>"
        }
        return text + "</CompleteMultipartUpload>"
    }

    private static func escaped(_ text: String) -> String {
        text.reduce(into: "") { result, character in
            switch character {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            default: result.append(character)
            }
        }
    }

    func abort() {
        let isFirst = state.withLock { state in
            if state.isEnded { return false }
            state.isEnded = true
            state.isAborted = true
            return true
        }
        if isFirst { giveUp() }
    }

    private func giveUp() {
        // The run's own flag may be what ended the upload.
        let stop = StopFlag(deadline: .seconds(20))
        do {
            _ = try store.answer(object, stop: stop) {
                try store.session.attempt(
                    .abort(key: key), method: "DELETE", query: [("uploadId", identifier)], stop: stop,
                    complaint: { $0.status == 404 && $0.code != "NoSuchBucket" ? .accept : nil })
            }
        } catch {
            store.exchange.log.detail(
                "\(error); what is stored of the upload stays until a lifecycle rule of the bucket removes it")
        }
    }
}
