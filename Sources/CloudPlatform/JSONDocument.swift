internal import FoundationEssentials

/// JSON of any shape, read so that each reader decides what may be missing and what may not.
enum JSONDocument: Decodable, Equatable {
    case null
    case boolean(Bool)
    case number(Double)
    case text(String)
    case list([JSONDocument])
    case object([String: JSONDocument])

    /// Nil for anything that is not one whole JSON value.
    init?(_ bytes: [UInt8]) {
        guard let value = try? JSONDecoder().decode(JSONDocument.self, from: Data(bytes)) else { return nil }
        self = value
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .boolean(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .text(value)
        } else if let value = try? container.decode([JSONDocument].self) {
            self = .list(value)
        } else {
            self = .object(try container.decode([String: JSONDocument].self))
        }
    }

    var object: [String: JSONDocument]? {
        if case .object(let members) = self { members } else { nil }
    }
    var text: String? {
        if case .text(let value) = self { value } else { nil }
    }
}
