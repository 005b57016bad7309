/// A store that objects can be put into. A key is immutable: nothing here replaces an object that is there.
public protocol WritableStore: ObjectStore {
    /// What the parts of one upload must keep to.
    var partRules: PartRules { get }

    /// Makes ready for one large object. Nothing of it is visible before `complete`. Throws `StoreConflict` where the key is
    /// known to be taken already; the last word on that is `complete`'s.
    func beginUpload(key: String, stop: StopFlag) throws -> any ObjectUpload

    /// A small object in one request, with a checksum that the store verifies. Throws `StoreConflict` where the key is taken;
    /// where a first attempt's answer was lost and the object there is byte for byte this one, it is a success.
    func put(key: String, bytes: [UInt8], stop: StopFlag) throws

    /// Removes one object; an absent one is fine.
    func remove(key: String, stop: StopFlag) throws
}

/// One large object on its way into a store. Parts may be sent from several threads at once and in any order; every number
/// from 1 on must have been sent once before `complete`. Each call blocks, and retries by itself what is worth retrying.
public protocol ObjectUpload: AnyObject, Sendable {
    /// Sends one part.
    func send(part: Int, bytes: [UInt8]) throws
    /// A part whose bytes the store takes from an object that it already has. Throws `CopySourceGone` where that object was
    /// replaced or removed, or the store cannot do such a thing.
    func copy(part: Int, from object: StoredObject, range: Range<Int64>) throws
    /// Makes the object visible, whole, and returns it pinned. Throws `StoreConflict` where the key is taken.
    func complete() throws -> StoredObject
    /// Gives the upload up and removes what was stored of it, as far as the role may; never throws. Safe after a failed `complete`.
    func abort()
}

/// Bytes of every part but the last, and how many there may be. For S3: 5 MiB to 5 GiB, 10,000 parts (Amazon S3 User Guide,
/// "Amazon S3 multipart upload limits"). A copied part keeps to the same rules.
public struct PartRules: Sendable, Equatable {
    public let smallest: Int64
    public let largest: Int64
    public let most: Int

    public init(smallest: Int64, largest: Int64, most: Int) {
        self.smallest = smallest
        self.largest = largest
        self.most = most
    }
}

/// An object of that key is there already, and keys are immutable.
public struct StoreConflict: Error, Sendable, Equatable, CustomStringConvertible {
    /// `s3://bucket/key`.
    public let object: String
    public init(object: String) { self.object = object }
    public var description: String { "\(object): an object of that name is there already" }
}

/// Nothing can be copied from the object: it is not there any more, or is another one, or the store copies no parts at all.
public struct CopySourceGone: Error, Sendable, Equatable, CustomStringConvertible {
    /// `s3://bucket/key`.
    public let object: String
    public let reason: String
    public init(object: String, reason: String = "gone or replaced since it was chosen") {
        self.object = object
        self.reason = reason
    }
    public var description: String { "\(object): \(reason)" }
}
