/// A call that an upload cannot follow, in any store: the caller's order of things is wrong, or the upload has ended.
public enum UploadError: Error, Sendable, Equatable, CustomStringConvertible {
    /// It was completed or given up.
    case closed(object: String)
    /// `complete` before that part was sent, or after its sending failed.
    case missingPart(object: String, part: Int)
    /// The part was sent before with another length, and later ones already lie behind it.
    case otherLength(object: String, part: Int)
    /// The number or the length is outside of the store's `PartRules`.
    case outsideRules(object: String, part: Int, length: Int64)

    public var description: String {
        switch self {
        case .closed(let object): "\(object): the upload has ended"
        case .missingPart(let object, let part): "\(object): part \(part) of the upload is missing"
        case .otherLength(let object, let part): "\(object): part \(part) was sent before with another length"
        case .outsideRules(let object, let part, let length):
            "\(object): the store takes no part \(part) of \(ByteCount(length))"
        }
    }
}
