/// `.env` files as Symfony's Dotenv component reads them. Neighbouring pieces join there, `'…'` is raw, and `\r` in `"…"` is
/// the only form of a carriage return, since raw ones become newlines before anything is read.
struct DotenvScanner: PlaceScanner {
    private enum Place: Equatable {
        case key
        case comment
        case value
        case single
        case double
        /// `${…}` or `$(…)`, with the brackets open in it; back to double quotes or not.
        case expansion(close: UInt8, inDouble: Bool)
    }
    private var place = Place.key
    private var tail: [UInt8] = []
    private var isEscaped = false

    mutating func read(_ byte: UInt8) -> String? {
        if byte == .newline, place == .key || place == .comment || place == .value {
            place = .key
            tail = []
            isEscaped = false
            return nil
        }
        let previous = tail.last
        tail.append(byte)
        switch place {
        case .comment: break
        case .key:
            if byte == .hash { place = .comment }
            if byte == .equals {
                place = .value
                tail = []
            }
        case .value:
            if isEscaped {
                isEscaped = false
            } else if byte == .backslash {
                isEscaped = true
            } else if byte == .singleQuote || byte == .doubleQuote {
                place = byte == .singleQuote ? .single : .double
            } else if byte == .hash, previous.map(\.isBlank) ?? true {
                place = .comment
            } else {
                expand(byte, previous, inDouble: false)
            }
        case .single:
            if byte == .singleQuote { place = .value }
        case .double:
            if isEscaped {
                isEscaped = false
            } else if byte == .backslash {
                isEscaped = true
            } else if byte == .doubleQuote {
                place = .value
            } else {
                expand(byte, previous, inDouble: true)
            }
        case .expansion(let close, let inDouble):
            if byte == close { place = inDouble ? .double : .value }
        }
        return nil
    }

    private mutating func expand(_ byte: UInt8, _ previous: UInt8?, inDouble: Bool) {
        guard previous == .dollar else { return }
        if byte == UInt8(ascii: "{") { place = .expansion(close: UInt8(ascii: "}"), inDouble: inDouble) }
        if byte == UInt8(ascii: "(") { place = .expansion(close: UInt8(ascii: ")"), inDouble: inDouble) }
    }

    mutating func quote(_ value: Scalar, before following: Following) throws(Refusal) -> [UInt8] {
        if isEscaped { throw .place("an escape that the template began") }
        let bytes = try value.bytes()
        defer { tail = [UInt8(ascii: "x")] }
        switch place {
        case .comment: return try CommentText.quote(value)
        case .key:
            guard !bytes.isEmpty, bytes.consists(ofWordsAnd: "") else {
                throw Refusal("stands in the name of a variable, which takes letters, digits and _ only")
            }
            return bytes
        case .expansion: throw .place("${…} or $(…)")
        case .value: return bytes.isEmpty ? [.singleQuote, .singleQuote] : Self.pieces(bytes)
        case .single:
            // Out of the author's quotes and back.
            return bytes.contains { $0 == .singleQuote || $0 == .carriageReturn }
                ? [.singleQuote] + Self.pieces(bytes) + [.singleQuote] : bytes
        case .double:
            if bytes.consists(ofWordsAnd: " ./:@,+-%") { return bytes }
            return [.doubleQuote] + Self.pieces(bytes) + [.doubleQuote]
        }
    }

    private static func pieces(_ bytes: [UInt8]) -> [UInt8] {
        var text: [UInt8] = []
        var rest = bytes[...]
        func isSpecial(_ byte: UInt8) -> Bool { byte == .singleQuote || byte == .carriageReturn }
        while !rest.isEmpty {
            let raw = rest.prefix { !isSpecial($0) }
            if !raw.isEmpty { text += [.singleQuote] + raw + [.singleQuote] }
            rest = rest.dropFirst(raw.count)
            let special = rest.prefix(while: isSpecial)
            if !special.isEmpty {
                text += [.doubleQuote] + special.flatMap { $0 == .singleQuote ? [$0] : Array("\\r".utf8) } + [.doubleQuote]
            }
            rest = rest.dropFirst(special.count)
        }
        return text
    }

    func ending() -> String? {
        switch place {
        case .key, .comment, .value: nil
        default: "a quoted value is still open where the template ends"
        }
    }
}
