import com.alibaba.com.caucho.hessian.io.Hessian2Output;
import java.io.*;
import java.math.*;
import java.util.*;

/** Prints `vectors.txt`: name, number of values, their bytes as the hessian2 inside Dubbo writes them. */
public class Vectors {
  enum Color { RED, GREEN }
  public static class Node implements Serializable { public String name; public Node next; public Color color = Color.GREEN; public Object[] any; Node(String n){name=n;} public Node(){} }
  public static class A implements Serializable { public int a = 1; public String b = "A"; }
  public static class B implements Serializable { public int a = 1; public String b = "B"; }
  public static class C implements Serializable { public int a = 1; public String b = "C"; }
  public static class D implements Serializable { public int a = 1; public String b = "D"; }
  public static class E implements Serializable { public int a = 1; public String b = "E"; }
  public static class F implements Serializable { public int a = 1; public String b = "F"; }
  public static class G implements Serializable { public int a = 1; public String b = "G"; }
  public static class H implements Serializable { public int a = 1; public String b = "H"; }
  public static class I implements Serializable { public int a = 1; public String b = "I"; }
  public static class J implements Serializable { public int a = 1; public String b = "J"; }
  public static class K implements Serializable { public int a = 1; public String b = "K"; }
  public static class L implements Serializable { public int a = 1; public String b = "L"; }
  public static class M implements Serializable { public int a = 1; public String b = "M"; }
  public static class N implements Serializable { public int a = 1; public String b = "N"; }
  public static class O implements Serializable { public int a = 1; public String b = "O"; }
  public static class P implements Serializable { public int a = 1; public String b = "P"; }
  public static class Q implements Serializable { public int a = 1; public String b = "Q"; }
  public static class R implements Serializable { public int a = 1; public String b = "R"; }
  static String sb(String s, int n) { return s.repeat(n); }
  static void one(String name, Object... vs) throws Exception {
    ByteArrayOutputStream b = new ByteArrayOutputStream();
    Hessian2Output o = new Hessian2Output(b);
    for (Object v : vs) o.writeObject(v);
    o.flushBuffer(); o.flush();
    StringBuilder h = new StringBuilder();
    for (byte x : b.toByteArray()) h.append(String.format("%02x", x));
    System.out.println(name + " " + vs.length + " " + h);
  }
  public static void main(String[] a) throws Exception {
    one("null", (Object) null);
    one("bool", true, false);
    for (int v : new int[]{0,-16,47,48,-17,-2048,2047,2048,-2049,262143,-262144,262144,-262145,Integer.MAX_VALUE,Integer.MIN_VALUE}) one("int", v);
    for (long v : new long[]{0,-8,15,16,-9,-2048,2047,2048,262143,-262144,262144,Integer.MAX_VALUE,Integer.MIN_VALUE,Long.MAX_VALUE,Long.MIN_VALUE}) one("long", v);
    for (double v : new double[]{0,1,-128,127,128,-32768,32767,12.25,0.001,Double.MAX_VALUE,Double.NaN,65.536}) one("double", v);
    one("float", 1.5f); one("short", (short) 5, (byte) 7, 'c');
    one("date", new Date(894621091000L), new Date(894621060000L), new java.sql.Timestamp(5));
    for (int n : new int[]{0,1,31,32,255,1023,1024}) { one("ascii", sb("a",n)); one("wide", sb("é漢",n/2)); }
    one("emoji", "😀", sb("😀x",20), sb("😀",600));
    one("chunked", sb("0123456789",3300), "end");
    for (int n : new int[]{0,15,16,1023,1024}) one("binary", (Object) new byte[n]);
    one("binary-chunked", (Object) new byte[9000]);
    one("lists", new ArrayList<>(List.of(1,2,3)), new LinkedList<>(List.of("a")), List.of(1,2), Arrays.asList(1,2,3,4,5,6,7,8,9,10), new ArrayList<>());
    one("arrays", new int[]{1,2,3}, new String[]{"a","b"}, new Object[]{1,"x",null}, new long[20], new double[]{1.5}, new int[2][3], new String[0]);
    one("sets", new HashSet<>(List.of("a")), new TreeSet<>(List.of(1,2)), EnumSet.of(Color.RED));
    Map<String, Object> m = new LinkedHashMap<>(); m.put("a", 1); m.put("b", List.of("c")); m.put("self", new HashMap<>(Map.of("x", 1L)));
    one("maps", new HashMap<>(Map.of("k","v")), new TreeMap<>(Map.of("k","v")), m, new HashMap<>(), new Hashtable<>(Map.of(1,2)));
    Node n = new Node("one"); n.next = new Node("two"); n.next.next = n; n.any = new Object[]{n, n.next, Color.RED, m};
    one("objects", n, n, new Node("three"), n.any);
    one("decimals", new BigDecimal("12.34"), new BigInteger("123456789012345678901234567890"));
    one("enums", Color.RED, Color.GREEN, Color.RED);
    one("exception", new IllegalStateException("why", new IOException("cause")));
    one("others", Locale.FRANCE, UUID.nameUUIDFromBytes(new byte[]{1}), java.time.LocalDate.of(2026,11,24), java.time.LocalDateTime.of(2026,11,24,1,2,3), java.time.Duration.ofSeconds(5), Object.class);
    Object[] many = new Object[]{new A(),new B(),new C(),new D(),new E(),new F(),new G(),new H(),new I(),new J(),new K(),new L(),new M(),new N(),new O(),new P(),new Q(),new R(),new Q()};
    one("many-classes", many);
  }
}
