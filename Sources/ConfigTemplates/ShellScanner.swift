/// sh scripts and files of assignments, after the POSIX Shell Command Language, section 2.2 and 2.6. Every byte string
/// can be carried in a word, in single and in double quotes.
struct ShellScanner: PlaceScanner {
    private enum Frame: Equatable {
        /// Words, at the top level or in `$(…)`, with the number of parentheses open in it.
        case words(parentheses: Int)
        case single
        case double
        case comment
        case parameter(depth: Int)
        case arithmetic(depth: Int)
        case backtick
        /// `$'…'`, which not every sh knows.
        case ansi
        case delimiter
        case document
    }
    private var frames: [Frame] = [.words(parentheses: 0)]
    private var tail: [UInt8] = []
    private var isEscaped = false
    private var delimiter: [UInt8] = []
    private var stripsTabs = false
    /// A here-document begins at the end of this line.
    private var isDocumentDue = false
    private var lineText: [UInt8] = []

    mutating func read(_ byte: UInt8) -> String? {
        let previous = tail.last
        tail.append(byte)
        if tail.count > 8 { tail.removeFirst() }
        guard let frame = frames.last else { return nil }
        switch frame {
        case .words(let parentheses): return readWords(byte, previous, parentheses)
        case .comment:
            if byte == .newline {
                frames.removeLast()
                endLine()
            }
        case .single:
            if byte == .singleQuote { frames.removeLast() }
        case .ansi:
            if byte.unescaped(&isEscaped) == .singleQuote { frames.removeLast() }
        case .double:
            switch byte.unescaped(&isEscaped) {
            case .doubleQuote?: frames.removeLast()
            case .backtick?: frames.append(.backtick)
            case let byte?: expand(byte, previous)
            case nil: break
            }
        case .backtick:
            if byte.unescaped(&isEscaped) == .backtick { frames.removeLast() }
        case .parameter(let depth):
            switch byte.unescaped(&isEscaped) {
            case UInt8(ascii: "{")?: replaceFrame(.parameter(depth: depth + 1))
            case UInt8(ascii: "}")?: replaceFrame(depth > 1 ? .parameter(depth: depth - 1) : nil)
            default: break
            }
        case .arithmetic(let depth):
            if byte == UInt8(ascii: "(") { replaceFrame(.arithmetic(depth: depth + 1)) }
            if byte == UInt8(ascii: ")") { replaceFrame(depth > 1 ? .arithmetic(depth: depth - 1) : nil) }
        case .delimiter: readDelimiter(byte)
        case .document:
            if byte == .newline {
                let line = stripsTabs ? lineText.drop { $0 == .tab } : lineText[...]
                if line.elementsEqual(delimiter) { frames.removeLast() }
                lineText = []
            } else {
                lineText.append(byte)
            }
        }
        return nil
    }

    /// Nil leaves it.
    private mutating func replaceFrame(_ frame: Frame?) {
        frames.removeLast()
        if let frame { frames.append(frame) }
    }

    private mutating func readWords(_ byte: UInt8, _ previous: UInt8?, _ parentheses: Int) -> String? {
        guard byte.unescaped(&isEscaped) != nil else { return nil }
        switch byte {
        case .singleQuote: frames.append(previous == .dollar ? .ansi : .single)
        case .doubleQuote: frames.append(.double)
        case .backtick: frames.append(.backtick)
        case .newline: endLine()
        case .hash:
            let startsWord = previous.map { $0.isBlank || $0 == .newline || ";&|()".utf8.contains($0) } ?? true
            if startsWord { frames.append(.comment) }
        case UInt8(ascii: ")"):
            if parentheses > 0 {
                frames[frames.count - 1] = .words(parentheses: parentheses - 1)
            } else if frames.count > 1 {
                frames.removeLast()
            }
        case UInt8(ascii: "<") where tail.hasSuffix("<<") && !tail.hasSuffix("<<<"):
            frames.append(.delimiter)
            delimiter = []
            stripsTabs = false
        default:
            if tail.hasSuffix("$((") {
                frames[frames.count - 1] = .arithmetic(depth: 2)
            } else if byte == UInt8(ascii: "("), previous != .dollar {
                frames[frames.count - 1] = .words(parentheses: parentheses + 1)
            } else {
                expand(byte, previous)
            }
        }
        return nil
    }

    private mutating func expand(_ byte: UInt8, _ previous: UInt8?) {
        guard previous == .dollar else { return }
        if byte == UInt8(ascii: "{") { frames.append(.parameter(depth: 1)) }
        if byte == UInt8(ascii: "(") { frames.append(.words(parentheses: 0)) }
    }

    private mutating func readDelimiter(_ byte: UInt8) {
        if delimiter.isEmpty, byte == UInt8(ascii: "<") {
            // `<<<` of other shells: an ordinary word follows.
            frames.removeLast()
        } else if delimiter.isEmpty, byte == UInt8(ascii: "-"), tail.hasSuffix("<<-") {
            stripsTabs = true
        } else if delimiter.isEmpty, byte.isBlank {
        } else if byte.isBlank || byte == .newline || ";&|<>()".utf8.contains(byte) {
            frames.removeLast()
            isDocumentDue = true
            if byte == .newline { endLine() }
        } else if !"'\"\\".utf8.contains(byte) {
            delimiter.append(byte)
        }
    }

    private mutating func endLine() {
        guard isDocumentDue else { return }
        isDocumentDue = false
        lineText = []
        frames.append(.document)
    }

    mutating func quote(_ value: Scalar, before following: Following) throws(Refusal) -> [UInt8] {
        if isEscaped { throw .place("an escape that the template began") }
        for frame in frames {
            switch frame {
            case .arithmetic: throw .place("arithmetic", "assign it to a variable first")
            case .parameter: throw .place("${…}", "assign it to a variable first")
            case .backtick: throw .place("backticks", "use $(…)")
            case .ansi: throw .place("$'…'", "use '…'")
            case .delimiter, .document: throw .place("a here-document", "assign it to a variable first")
            case .words, .single, .double, .comment: break
            }
        }
        if tail.last == .dollar, frames.last != .single { throw .place("an expansion that the template began with $") }
        let bytes = try value.bytes()
        let startsWord = tail.last.map { $0.isBlank || $0 == .newline || ";&|(".utf8.contains($0) } ?? true
        tail = [UInt8(ascii: "x")]
        if case .words? = frames.last, following.first == .equals, startsWord {
            // A quoted name would make a command of the assignment.
            guard let first = bytes.first, !first.isDigit, bytes.consists(ofWordsAnd: "") else {
                throw Refusal("stands in the name of a variable, which takes letters, digits and _ only")
            }
            return bytes
        }
        switch frames.last {
        case .comment?: return try CommentText.quote(value)
        case .single?: return bytes.flatMap { $0 == .singleQuote ? Array("'\"'\"'".utf8) : [$0] }
        case .double?: return Self.doubleQuoted(bytes)
        default:
            // One pair of quotes either way, so that readers of assignments that know less than sh understand it too.
            return bytes.contains(.singleQuote)
                ? [.doubleQuote] + Self.doubleQuoted(bytes) + [.doubleQuote] : [.singleQuote] + bytes + [.singleQuote]
        }
    }

    private static func doubleQuoted(_ bytes: [UInt8]) -> [UInt8] {
        bytes.flatMap { "\\\"$`".utf8.contains($0) ? [.backslash, $0] : [$0] }
    }

    func ending() -> String? {
        switch frames.last {
        case .words?, .comment?: nil
        case .document? where lineText.elementsEqual(delimiter): nil
        case .document?: "a here-document is still open where the template ends"
        default: "a quote or an expansion is still open where the template ends"
        }
    }
}
