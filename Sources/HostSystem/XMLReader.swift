internal import CExpat

/// One element with its text and children. Names are without a namespace prefix.
public struct XMLElement: Sendable, Equatable {
    public let name: String
    /// The character data directly inside it, as it is, white space too.
    public internal(set) var text = ""
    public internal(set) var children: [XMLElement] = []

    init(name: String) { self.name = name }

    public func child(_ name: String) -> XMLElement? { children.first { $0.name == name } }
    public func children(_ name: String) -> [XMLElement] { children.filter { $0.name == name } }
    /// The text of the first child of that name.
    public func text(of name: String) -> String? { child(name)?.text }
}

/// Small XML documents from servers, by expat. Bounded in size, depth and number of elements; a document type declaration is
/// refused, so there are no entities to expand or to fetch.
public enum XMLReader {
    public enum Problem: Error, Sendable, Equatable, CustomStringConvertible {
        case tooLarge, tooDeep, tooMany, documentType
        case malformed(line: Int, reason: String)

        public var description: String {
            switch self {
            case .tooLarge: "the XML document is too large"
            case .tooDeep: "the XML document is nested too deeply"
            case .tooMany: "the XML document has too many elements"
            case .documentType: "the XML document declares a document type, which is refused"
            case .malformed(let line, let reason): "the XML is wrong in line \(line): \(reason)"
            }
        }
    }

    private final class Builder {
        let parser: XML_Parser
        let depth: Int
        let elements: Int
        var open: [XMLElement] = []
        var root: XMLElement?
        var count = 0
        var problem: Problem?

        init(parser: XML_Parser, depth: Int, elements: Int) {
            self.parser = parser
            self.depth = depth
            self.elements = elements
        }

        func stop(_ problem: Problem) {
            self.problem = self.problem ?? problem
            XML_StopParser(parser, XML_Bool(0))
        }

        func begin(_ name: String) {
            count += 1
            if count > elements { return stop(.tooMany) }
            if open.count >= depth { return stop(.tooDeep) }
            open.append(XMLElement(name: name.split(separator: ":").last.map(String.init) ?? name))
        }

        func end() {
            guard let element = open.popLast() else { return }
            if open.isEmpty { root = element } else { open[open.count - 1].children.append(element) }
        }
    }

    public static func parse(
        _ bytes: [UInt8], limit: Int = 8 << 20, depth: Int = 32, elements: Int = 200_000
    ) throws(Problem) -> XMLElement {
        guard bytes.count <= limit else { throw .tooLarge }
        guard let parser = XML_ParserCreate(nil) else { throw .malformed(line: 0, reason: "no parser") }
        defer { XML_ParserFree(parser) }
        let builder = Builder(parser: parser, depth: depth, elements: elements)
        XML_SetUserData(parser, Unmanaged.passUnretained(builder).toOpaque())
        XML_SetElementHandler(
            parser,
            { context, name, _ in
                guard let context, let name else { return }
                Unmanaged<Builder>.fromOpaque(context).takeUnretainedValue().begin(String(cString: name))
            },
            { context, _ in
                guard let context else { return }
                Unmanaged<Builder>.fromOpaque(context).takeUnretainedValue().end()
            })
        XML_SetCharacterDataHandler(parser) { context, text, length in
            guard let context, let text else { return }
            let builder = Unmanaged<Builder>.fromOpaque(context).takeUnretainedValue()
            guard !builder.open.isEmpty else { return }
            let piece = UnsafeBufferPointer(start: text, count: Int(length)).map { UInt8(bitPattern: $0) }
            builder.open[builder.open.count - 1].text += String(decoding: piece, as: UTF8.self)
        }
        XML_SetStartDoctypeDeclHandler(parser) { context, _, _, _, _ in
            guard let context else { return }
            Unmanaged<Builder>.fromOpaque(context).takeUnretainedValue().stop(.documentType)
        }
        let status = bytes.withUnsafeBytes { raw in
            XML_Parse(parser, raw.bindMemory(to: CChar.self).baseAddress, CInt(raw.count), 1)
        }
        if let problem = builder.problem { throw problem }
        guard status == XML_STATUS_OK, let root = builder.root else {
            let reason = XML_ErrorString(XML_GetErrorCode(parser)).map { String(cString: $0) } ?? "no root element"
            throw .malformed(line: Int(XML_GetCurrentLineNumber(parser)), reason: reason)
        }
        return root
    }
}
