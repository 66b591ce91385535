import java.io.*;
import java.math.*;
import java.time.*;
import java.util.*;
import org.apache.dubbo.common.serialize.fastjson2.*;
import org.apache.dubbo.rpc.model.FrameworkModel;

/** Prints `jsonb.txt`: name, and the item that Dubbo's fastjson2 output makes of attachments: `v` between `before` and `behind`. */
public class JsonbVectors {
  static final FrameworkModel MODEL = FrameworkModel.defaultModel();
  enum Color { RED, GREEN }
  public static class Node implements Serializable { public String name; public Node next; public Color color = Color.GREEN; public Object[] any; public Node(String n){name=n;} public Node(){} }
  static void one(String name, Object v) throws Exception {
    Map<String, Object> m = new LinkedHashMap<>();
    m.put("before", "b"); m.put("v", v); m.put("behind", "e");
    item(name, new HashMap<>(m));
  }
  static void item(String name, Map<String, Object> m) throws Exception {
    ByteArrayOutputStream b = new ByteArrayOutputStream();
    FastJson2ObjectOutput o = new FastJson2ObjectOutput(new Fastjson2CreatorManager(MODEL), new Fastjson2SecurityManager(MODEL), b);
    o.writeAttachments(m);
    o.flushBuffer();
    StringBuilder h = new StringBuilder();
    for (byte x : b.toByteArray()) h.append(String.format("%02x", x));
    System.out.println(name + " " + h);
  }
  public static void main(String[] a) throws Exception {
    one("null", null); one("true", true); one("false", false);
    for (int v : new int[]{0,-16,47,48,-17,-2048,2047,2048,-2049,262143,-262144,262144,Integer.MAX_VALUE,Integer.MIN_VALUE}) one("int", v);
    for (long v : new long[]{0,-8,15,16,-9,-2048,2047,2048,262143,-262144,262144,Integer.MAX_VALUE,Integer.MIN_VALUE,Long.MAX_VALUE,Long.MIN_VALUE}) one("long", v);
    for (double v : new double[]{0,1,12.25,Double.MAX_VALUE,Double.NaN,3}) one("double", v);
    one("float", 1.5f); one("float", 2f); one("short", (short) 5); one("byte", (byte) 7); one("char", 'c'); one("char", '漢');
    for (int n : new int[]{0,1,31,47,48,255,2047,2048}) one("ascii", "a".repeat(n));
    for (String s : new String[]{"é", "éa".repeat(30), "漢", "漢a".repeat(40), "😀", "x😀".repeat(30), "漢".repeat(3000)}) one("wide", s);
    one("binary", new byte[20]);
    one("lists", new ArrayList<>(List.of(1,2,"x"))); one("lists", new LinkedList<>(List.of("a"))); one("lists", List.of(1,2)); one("lists", Arrays.asList(1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17));
    one("arrays", new int[]{1,2,3}); one("arrays", new String[]{"a","b"}); one("arrays", new Object[]{1,"x",null}); one("arrays", new long[20]); one("arrays", new double[]{1.5});
    one("sets", new HashSet<>(List.of("a"))); one("sets", new TreeSet<>(List.of(1,2)));
    one("maps", new HashMap<>(Map.of("k","v"))); one("maps", new TreeMap<>(Map.of("k","v"))); one("maps", new LinkedHashMap<>(Map.of(1,2))); one("maps", new HashMap<>());
    Node n = new Node("one"); n.next = new Node("two"); n.any = new Object[]{Color.RED, new Node("three")};
    one("object", n);
    Node c = new Node("c"); c.next = c; one("cycle", c);
    one("twice", new Object[]{n, n});
    one("decimals", new BigDecimal("12.34")); one("decimals", new BigDecimal("12")); one("decimals", new BigDecimal("123456789012345678901234567890.123")); one("decimals", new BigInteger("123456789012345678901234567890")); one("decimals", new BigInteger("7"));
    one("enum", Color.RED);
    one("date", new Date(894621091000L)); one("date", new Date(894621060000L)); one("date", new Date(894621091001L)); one("date", new java.sql.Timestamp(5));
    one("time", LocalDate.of(2026,11,24)); one("time", LocalDateTime.of(2026,11,24,1,2,3)); one("time", LocalDateTime.of(2026,11,24,1,2,3,123456789)); one("time", LocalTime.of(1,2,3,4)); one("time", Instant.ofEpochSecond(1234567890L, 123)); one("time", ZonedDateTime.of(2026,11,24,1,2,3,4,ZoneId.of("Europe/Athens"))); one("time", OffsetDateTime.of(2026,11,24,1,2,3,4,ZoneOffset.UTC)); one("time", Duration.ofSeconds(5));
    one("others", Locale.FRANCE); one("others", UUID.nameUUIDFromBytes(new byte[]{1})); one("others", new java.util.concurrent.atomic.AtomicInteger(5)); one("others", Optional.of("x"));
    Map<String, Object> m = new TreeMap<>(Map.of("before","b","behind","e")); item("typed-map", m);
    item("linked-map", new LinkedHashMap<>(Map.of("k","v")));
    item("empty", new HashMap<>());
    item("no-map", null);
  }
}
